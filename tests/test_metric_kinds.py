"""Metrics against scikit-learn, in one batch and in several, eager, native and weighted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

import chainrule as cr
from chainrule import metrics
from chainrule.errors import ConfigError, ShapeError
from chainrule.metrics.named import get_metric

Array = np.ndarray[Any, Any]


def sample(seed: int, samples: int, classes: int) -> tuple[Array, Array, Array]:
    """Labels, probabilities and weights."""
    rng = np.random.Generator(np.random.PCG64(seed))
    labels = rng.integers(0, max(2, classes), samples)
    if classes == 1:
        return labels[:, None].astype(np.float32), rng.random((samples, 1)).astype(np.float32), rng.random(samples)
    logits = rng.normal(size=(samples, classes)) + 2 * np.eye(classes)[labels]
    odds = np.exp(logits)
    return labels, (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32), rng.random(samples)


def of(metric: metrics.Totals, labels: Array, scores: Array, weights: Array | None = None, parts: int = 3) -> Any:
    """The metric over some batches."""
    for rows in np.array_split(np.arange(len(labels)), parts):
        weight = None if weights is None else cr.tensor(weights[rows])
        metric.update_state(cr.tensor(labels[rows]), cr.tensor(scores[rows]), weight)
    return metric.result()


def decided(scores: Array) -> Array:
    return (scores[:, 0] > 0.5).astype(int) if scores.shape[1] == 1 else scores.argmax(axis=1)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), samples=st.integers(3, 60), classes=st.integers(1, 5), weighted=st.booleans())
@pytest.mark.parametrize("average", ["macro", "micro", "weighted", None])
@pytest.mark.slow
def test_precision_recall_and_f1(seed: int, samples: int, classes: int, weighted: bool, average: Any) -> None:
    labels, scores, weights = sample(seed, samples, classes)
    given_weights = weights if weighted else None
    kinds = [(metrics.Precision, 0), (metrics.Recall, 1), (metrics.F1Score, 2)]
    names = [1] if classes == 1 else list(range(classes))
    wanted = reference.precision_recall_fscore_support(
        labels.reshape(-1), decided(scores), average=average, labels=names, sample_weight=given_weights, zero_division=0
    )
    for kind, place in kinds:
        found = of(kind(average=average), labels, scores, given_weights)
        np.testing.assert_allclose(found, wanted[place], rtol=1e-9, atol=1e-12)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), samples=st.integers(3, 60), classes=st.integers(1, 5))
@pytest.mark.slow
def test_confusion_matrix(seed: int, samples: int, classes: int) -> None:
    labels, scores, _ = sample(seed, samples, classes)
    wanted = reference.confusion_matrix(labels.reshape(-1), decided(scores), labels=range(max(2, classes)))
    found = of(metrics.ConfusionMatrix(), labels, scores)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, wanted)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), samples=st.integers(20, 200), classes=st.integers(1, 4), weighted=st.booleans())
@pytest.mark.slow
def test_auc(seed: int, samples: int, classes: int, weighted: bool) -> None:
    labels, scores, weights = sample(seed, samples, classes)
    given_weights = weights if weighted else None
    columns = [1] if classes == 1 else list(range(classes))
    areas, precisions = [], []
    for place, name in enumerate(columns):
        true = labels.reshape(-1) == name
        if true.any() and not true.all():
            areas.append(reference.roc_auc_score(true, scores[:, place], sample_weight=given_weights))
            precisions.append(reference.average_precision_score(true, scores[:, place], sample_weight=given_weights))
    found = of(metrics.AUC(num_thresholds=4000), labels, scores, given_weights)
    assert found == pytest.approx(np.mean(areas) if areas else np.nan, abs=0.01, nan_ok=True)
    found = of(metrics.AUC("PR", num_thresholds=4000), labels, scores, given_weights)
    assert found == pytest.approx(np.mean(precisions) if precisions else np.nan, abs=0.02, nan_ok=True)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 6), one_hot=st.booleans())
@pytest.mark.slow
def test_top_k(seed: int, k: int, one_hot: bool) -> None:
    labels, scores, _ = sample(seed, 40, 5)
    wanted = reference.top_k_accuracy_score(labels, scores, k=min(k, 4), labels=range(5)) if k < 5 else 1.0
    kind = metrics.TopKCategoricalAccuracy if one_hot else metrics.SparseTopKCategoricalAccuracy
    given_labels = np.eye(5, dtype=np.float32)[labels] if one_hot else labels
    assert of(kind(k), given_labels, scores) == pytest.approx(wanted)


def test_a_nan_is_no_hit() -> None:
    scores = np.array([[np.nan, 0.2, 0.1], [0.1, np.nan, 0.3]], np.float32)
    assert of(metrics.SparseTopKCategoricalAccuracy(2), np.array([0, 2]), scores, parts=1) == 0.5


def test_errors_of_values() -> None:
    truth, found = np.array([[1.0], [2.0], [4.0]]), np.array([[1.5], [2.0], [1.0]])
    assert of(metrics.MeanAbsoluteError(), truth, found) == pytest.approx(reference.mean_absolute_error(truth, found))
    assert of(metrics.MeanSquaredError(), truth, found) == pytest.approx(reference.mean_squared_error(truth, found))


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.slow
def test_all_of_them_in_fit(engine: str) -> None:
    """In the step, at no second pass: the numbers of `fit` without learning are those of `evaluate` and of a batch."""
    labels, scores, _ = sample(4, 50, 3)
    x = np.log(scores)
    names = ["accuracy", "top_2_accuracy", "precision", "recall", "f1_score", "auc", "confusion_matrix"]

    class Learns(cr.layers.Layer):
        def build(self, input_shape: Any) -> None:
            self.shift = self.add_weight("shift", (3,), "zeros")

        def call(self, x: Any) -> Any:
            return x + self.shift

    model = cr.Sequential([cr.Input((3,)), Learns(), cr.layers.Activation("softmax")])
    model.compile(cr.optimizers.SGD(0.0), "sparse_categorical_crossentropy", metrics=names, engine=engine)
    history = model.fit(x, labels, batch_size=16, epochs=1, verbose=0).history
    again = model.evaluate(x, labels, batch_size=7, return_dict=True)
    plain: dict[str, metrics.Totals] = {
        "accuracy": metrics.SparseCategoricalAccuracy(),
        "top_2_accuracy": metrics.SparseTopKCategoricalAccuracy(2),
        "precision": metrics.Precision(),
        "recall": metrics.Recall(),
        "f1_score": metrics.F1Score(),
        "auc": metrics.AUC(),
    }
    assert "confusion_matrix" not in history
    for name, metric in plain.items():
        wanted = of(metric, labels, scores)
        assert history[name][0] == pytest.approx(wanted, abs=1e-6)
        assert again[name] == pytest.approx(wanted, abs=1e-6)
    counts = model.objective.metrics[-1].result()
    np.testing.assert_array_equal(counts, reference.confusion_matrix(labels, decided(scores)))


@pytest.mark.slow
def test_weights_count_in_weighted_metrics_only() -> None:
    labels, scores, weights = sample(4, 50, 3)
    model = cr.Sequential([cr.Input((3,)), cr.layers.Dense(3)])
    loss = cr.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"], weighted_metrics=[metrics.SparseCategoricalAccuracy("weighted")])
    found = model.evaluate(scores, labels, sample_weight=weights, return_dict=True)
    hits = model.predict(scores).argmax(axis=1) == labels
    assert found["accuracy"] == pytest.approx(hits.mean())
    assert found["weighted"] == pytest.approx(np.average(hits, weights=weights), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "loss", "message"),
    [
        ("top_5_accuracy", "mse", "has no top_5_accuracy; it is for labels of several classes"),
        ("top_x_accuracy", "mse", "unknown metric 'top_x_accuracy'; expected one of accuracy, top_K_accuracy, auc"),
    ],
)
def test_what_is_refused(name: str, loss: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        metrics.get_metric(name, cr.losses.get_loss(loss))


def test_thresholds_follow_the_loss() -> None:
    loss = cr.losses.BinaryCrossentropy(from_logits=True)
    scores, labels = np.array([[-1.0], [0.2], [3.0]], np.float32), np.array([[0.0], [1.0], [1.0]], np.float32)
    assert of(metrics.get_metric("recall", loss), labels, scores) == 1.0
    assert of(metrics.get_metric("auc", loss), labels, scores) == 1.0


def counted(labels: Array, scores: Array, weights: Array, thresholds: Array) -> tuple[Array, Array]:
    """AUC's counts above each threshold, as they are defined."""
    classes = scores.shape[1]
    true = labels if classes == 1 else np.eye(classes)[labels]
    above = scores.astype(np.float64)[:, :, None] > thresholds
    return tuple((marks[:, :, None] * weights[:, None, None] * above).sum(0) for marks in (true, 1.0 - true))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [1, 2, 7])
def test_auc_counts_every_sample_at_its_own_threshold(classes: int, weighted: bool, dtype: str) -> None:
    """Scores that are thresholds, and their neighbours: all counts are right, and whole without weights."""
    metric = metrics.AUC(num_thresholds=11)
    thresholds = np.array([-1e-7, *(np.arange(1, 10) / 10), 1 + 1e-7])
    near = [np.nextafter(thresholds.astype(dtype), np.array(way, dtype)) for way in (-9, 9)]
    values = np.clip(np.concatenate([thresholds.astype(dtype), *near]), 0, 1)
    rng = np.random.Generator(np.random.PCG64(classes))
    scores = rng.choice(values, (60, classes)).astype(dtype)
    labels = rng.integers(0, max(2, classes), (60, 1) if classes == 1 else 60)
    weights = rng.random(60) if weighted else np.ones(60)
    of(metric, labels, scores, weights if weighted else None)
    for name, wanted in zip(("hits", "false"), counted(labels, scores, weights, thresholds), strict=True):
        if weighted:
            np.testing.assert_allclose(metric.total(name), wanted, rtol=1e-12, atol=1e-12)
        else:
            np.testing.assert_array_equal(metric.total(name), wanted)


@pytest.mark.parametrize("kind", [metrics.Precision, metrics.ConfusionMatrix, metrics.AUC])
def test_weights_of_samples_are_those_of_their_positions(kind: type[metrics.Totals]) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    scores = rng.random((4, 5, 5, 3))
    labels, weights = rng.integers(0, 3, (4, 5, 5)), rng.random(4)
    maps, flat, places = kind(), kind(), kind()
    maps.update_state(cr.tensor(labels), cr.tensor(scores), cr.tensor(weights))
    places.update_state(cr.tensor(labels), cr.tensor(scores), cr.tensor(np.tile(weights[:, None, None], (1, 5, 5))))
    flat.update_state(cr.tensor(labels.reshape(-1)), cr.tensor(scores.reshape(-1, 3)), cr.tensor(weights.repeat(25)))
    np.testing.assert_allclose(maps.result(), flat.result())
    np.testing.assert_allclose(places.result(), flat.result())
    with pytest.raises(ShapeError, match="expected one for each sample or position"):
        maps.update_state(cr.tensor(labels), cr.tensor(scores), cr.tensor(np.ones((4, 5, 5, 3))))


@pytest.mark.parametrize("weighted", [False, True])
def test_outputs_that_are_true_together(weighted: bool) -> None:
    """Each output is a yes/no answer: as scikit-learn counts indicator matrices."""
    rng = np.random.Generator(np.random.PCG64(3))
    labels, scores = rng.integers(0, 2, (40, 3)), rng.random((40, 3)).astype(np.float32)
    weights = rng.random(40) if weighted else None
    wanted = reference.precision_recall_fscore_support(
        labels, scores > 0.5, average="macro", sample_weight=weights, zero_division=0
    )
    for kind, place in ((metrics.Precision, 0), (metrics.Recall, 1), (metrics.F1Score, 2)):
        found = of(kind(multi_label=True), labels, scores, weights)
        np.testing.assert_allclose(found, wanted[place], rtol=1e-9)
    area = reference.roc_auc_score(labels, scores, average="macro", sample_weight=weights)
    assert of(metrics.AUC(num_thresholds=4000, multi_label=True), labels, scores, weights) == pytest.approx(
        area, abs=5e-3
    )
    with pytest.raises(ShapeError, match="3 outputs that may be true together have no confusion matrix"):
        of(metrics.ConfusionMatrix(multi_label=True), labels, scores)
    with pytest.raises(ShapeError, match="expected 0 or 1 for each output"):
        of(metrics.Recall(multi_label=True), labels[:, 0], scores)


def test_a_loss_of_yes_and_no_makes_metrics_of_yes_and_no() -> None:
    loss = cr.losses.BinaryCrossentropy()
    for name in ("precision", "recall", "f1_score", "auc", "confusion_matrix"):
        assert get_metric(name, loss).get_config()["multi_label"]
        assert not get_metric(name, cr.losses.CategoricalCrossentropy()).get_config()["multi_label"]
