"""Augmentations: what they do to pictures, by which keys they draw, and that the step computes them natively."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import augment
from chainrule.augment.base import Augmentation, augmented, described, get_augmentation
from chainrule.augment.geometry import cosine, sine, within_half_a_turn
from chainrule.augment.mixing import _beta_quantiles
from chainrule.engines import Executable as Reference
from chainrule.engines.native.executable import Executable as Native
from chainrule.errors import ConfigError
from chainrule.graph import Graph, Spec, input_spec

Array = np.ndarray[Any, Any]

KINDS: dict[str, Augmentation] = {
    "flip": augment.RandomFlip(),
    "flip both": augment.RandomFlip("both"),
    "crop": augment.RandomCrop((2, 1), fill=7.0),
    "affine": augment.RandomAffine(rotation=30, scale=(0.8, 1.25), shift=0.2, shear=10, fill=3.0),
    "colour": augment.RandomColour(0.2, 0.3, 0.4, 0.1),
    "noise": augment.GaussianNoise(5.0),
    "cutout": augment.Cutout(4, fill=9.0, probability=0.7),
    "mixup": augment.MixUp(0.4),
}


def pictures(count: int, size: tuple[int, int] = (9, 7), channels: int = 3) -> Array:
    rng = np.random.Generator(np.random.PCG64(4))
    return rng.integers(0, 256, (count, *size, channels)).astype(np.float32)


def graph_of(chosen: list[Augmentation], x: Array) -> Graph:
    def change(x: Any, y: Any, seed: Any, epoch: Any, sample: Any) -> Any:
        changed, labels = augmented(chosen, x, y, seed, epoch, sample)
        return [changed, *(part for pair in labels for part in pair if part is not None)]

    specs = [input_spec((None, *x.shape[1:])), input_spec((None,), "int32"), Spec((2,), np.dtype("uint32"))]
    return cr.trace(change, *specs, Spec((), np.dtype("uint32")), input_spec((None,), "uint32"), name="augmentation")


def inputs(x: Array, epoch: int = 0, numbers: Any = None) -> list[Array]:
    sample = np.arange(len(x)) if numbers is None else np.asarray(numbers)
    return [
        x,
        np.arange(len(x), dtype=np.int32),
        np.array([3, 0], np.uint32),
        np.array(epoch, np.uint32),
        sample.astype(np.uint32),
    ]


def changed(chosen: Augmentation, x: Array, **key: Any) -> Array:
    result: Array = Reference(graph_of([chosen], x))(*inputs(x, **key))[0]
    return result


@pytest.mark.parametrize("name", KINDS)
def test_native_and_reference_agree(name: str) -> None:
    x = pictures(5)
    graph = graph_of([KINDS[name]], x)
    for count in (5, 1, 3):
        given = inputs(x)
        given = [a[:count] if a.ndim and len(a) == 5 else a for a in given]
        for found, wanted in zip(Native(graph, batch=5)(*given), Reference(graph)(*given), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-3)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "mixup"])
def test_a_sample_is_changed_by_its_number_and_the_epoch_alone(name: str) -> None:
    x = pictures(6)
    whole = changed(KINDS[name], x)
    order = [4, 1, 5]
    np.testing.assert_array_equal(changed(KINDS[name], x[order], numbers=order), whole[order])
    assert not np.array_equal(changed(KINDS[name], x, epoch=1), whole)


def test_two_of_a_kind_draw_apart() -> None:
    x = pictures(8)
    twice = Reference(graph_of([augment.RandomFlip(), augment.RandomFlip()], x))(*inputs(x))[0]
    assert not np.array_equal(twice, x)  # the second one would undo the first


def test_flip_mirrors_half_of_the_samples_exactly() -> None:
    x = pictures(400, (3, 4), 1)
    found = changed(augment.RandomFlip(), x)
    same = (found == x).all(axis=(1, 2, 3))
    mirrored = (found == x[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same | mirrored).all()
    assert 160 < mirrored.sum() < 240
    both = changed(augment.RandomFlip("both"), x)
    forms = [x, x[:, ::-1], x[:, :, ::-1], x[:, ::-1, ::-1]]
    shares = [(both == form).all(axis=(1, 2, 3)).mean() for form in forms]
    assert sum(shares) >= 1
    assert min(shares) > 0.15


def test_crop_is_a_shift_by_whole_pixels() -> None:
    x = pictures(300, (5, 6), 2)
    found = changed(augment.RandomCrop((2, 1), fill=-1.0), x)
    wide = np.pad(x, [(0, 0), (2, 2), (1, 1), (0, 0)], constant_values=-1.0)
    seen = set()
    for number, picture in enumerate(found):
        places = [(i, j) for i in range(5) for j in range(3) if (wide[number, i : i + 5, j : j + 6] == picture).all()]
        assert places
        seen.update(places)
    assert len(seen) == 15


def test_an_affine_change_without_any_is_none() -> None:
    x = pictures(3)
    np.testing.assert_array_equal(changed(augment.RandomAffine(), x), x)


def test_a_quarter_turn_turns_pixels() -> None:
    """With the draw forced to one end."""
    x = pictures(2, (5, 5), 1)

    class Quarter(augment.RandomAffine):
        def change(self, x: Any, key: Any) -> Any:
            key.uniform = lambda low=0.0, high=1.0, shape=(): cr.tensor(np.full((2, 1), high, np.float32))
            return super().change(x, key)

    zeros = cr.tensor(np.zeros(2, np.uint32))
    found = Quarter(rotation=90).change(cr.tensor(x), augment.Key(zeros, zeros, zeros, 0)).numpy()
    turned = [np.rot90(x, k, (1, 2)) for k in (1, 3)]
    assert min(np.abs(found - one).max() for one in turned) < 1e-3


def test_cutout_blots_out_one_square() -> None:
    x = np.ones((200, 12, 12, 1), np.float32)
    found = changed(augment.Cutout(4), x)
    blotted = (found == 0).sum(axis=(1, 2, 3))
    assert blotted.max() == 16
    assert blotted.min() >= 4
    rows, columns = (found == 0).any(axis=(2, 3)), (found == 0).any(axis=(1, 3))
    assert (rows.sum(axis=1) * columns.sum(axis=1) == blotted).all()


def test_colour_leaves_the_range_and_grey_pictures_grey() -> None:
    x = pictures(20)
    found = changed(KINDS["colour"], x)
    assert found.min() >= 0
    assert found.max() <= 255
    grey = np.repeat(pictures(4, channels=1), 3, axis=-1)
    turned = changed(augment.RandomColour(hue=0.5, saturation=0.5), grey)
    np.testing.assert_allclose(turned, grey, atol=0.1)


def test_noise_has_its_deviation() -> None:
    x = np.zeros((50, 16, 16, 3), np.float32)
    found = changed(augment.GaussianNoise(2.5), x)
    assert abs(found.mean()) < 0.02
    assert found.std() == pytest.approx(2.5, rel=0.02)


def test_mixup_blends_neighbours_and_their_labels() -> None:
    x = pictures(6)
    mixed, y, share, other, rest = Reference(graph_of([augment.MixUp(0.5)], x))(*inputs(x))
    np.testing.assert_array_equal(y, np.arange(6))
    np.testing.assert_array_equal(other, np.roll(np.arange(6), -1))
    np.testing.assert_allclose(share + rest, 1, rtol=1e-6)
    assert (share >= 0.5).all()
    weight = share[:, None, None, None]
    np.testing.assert_allclose(mixed, x * weight + np.roll(x, -1, axis=0) * (1 - weight), rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 2.0, 8.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    """The table's moments against those of the distribution: mean 1/2, variance 1 / (8 alpha + 4)."""
    table = _beta_quantiles(alpha)[:-1]
    middles = (table[1:] + table[:-1]) / 2
    assert (np.diff(table) >= 0).all()
    assert middles.mean() == pytest.approx(0.5, abs=1e-6)
    assert middles.var() == pytest.approx(1 / (8 * alpha + 4), rel=0.01)


@pytest.mark.parametrize("name", KINDS)
def test_a_description_makes_the_same_again(name: str) -> None:
    again = get_augmentation(described(KINDS[name]))
    assert type(again) is type(KINDS[name])
    assert again.get_config() == KINDS[name].get_config()


# --- In fit ------------------------------------------------------------------------------------------------


def trained(engine: str, **options: Any) -> list[Array]:
    cr.set_seed(2)
    x = pictures(40, (8, 8)).astype(np.uint8)
    y = np.arange(40) % 3
    model = cr.Sequential(
        [
            cr.Input((8, 8, 3)),
            cr.layers.Rescaling(1 / 255),
            cr.layers.Conv2D(4, 3),
            cr.layers.Flatten(),
            cr.layers.Dense(3),
        ]
    )
    model.compile(
        "adam", cr.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"], engine=engine
    )
    history = model.fit(x, y, batch_size=16, epochs=2, verbose=0, **options)
    return [*model.get_weights(), np.array(history.history["loss"])]


CHAIN = [augment.RandomFlip(), augment.RandomCrop(1), augment.Cutout(3), augment.MixUp(0.3)]


@pytest.mark.slow
def test_both_engines_train_on_the_same_changes() -> None:
    for found, wanted in zip(trained("native", augment=CHAIN), trained("reference", augment=CHAIN), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_augmentation_changes_the_training() -> None:
    assert not np.array_equal(trained("native", augment=CHAIN)[0], trained("native")[0])


@pytest.mark.slow
def test_validation_is_not_augmented() -> None:
    x, y = pictures(40, (8, 8)).astype(np.uint8), np.arange(40) % 3
    model = cr.Sequential([cr.Input((8, 8, 3)), cr.layers.Rescaling(1 / 255), cr.layers.Flatten(), cr.layers.Dense(3)])
    model.compile("sgd", cr.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(x, y, verbose=0, augment=CHAIN, validation_data=(x, y))
    assert history.history["val_loss"][0] == pytest.approx(model.evaluate(x, y), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: augment.RandomFlip("diagonal"),  # type: ignore[arg-type]
            "direction must be 'horizontal', 'vertical' or 'both', got 'diagonal'",
        ),
        (lambda: augment.RandomCrop(-1), "RandomCrop: padding must be an integer >= 0, got -1"),
        (lambda: augment.RandomAffine(scale=(1.2, 0.8)), "scale must be two rising positive factors"),
        (lambda: augment.RandomColour(hue=2), r"hue lies in \[0, 1\], got 2"),
        (lambda: augment.Cutout(0), "size must be a positive number of pixels, got 0"),
        (lambda: augment.MixUp(0), r"alpha lies in \(0, 100\], got 0"),
        (lambda: get_augmentation("blur"), "unknown augmentation 'blur'; expected one of Cutout"),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("degrees", [-360.0, -270.0, -181.0, 190.0, 359.0, 720.0])
def test_angles_beyond_half_a_turn_turn_as_far(degrees: float) -> None:
    angle = within_half_a_turn(cr.tensor(np.full(1, np.deg2rad(degrees), np.float32)))
    assert abs(angle.item()) <= np.pi + 1e-5
    assert cosine(angle).item() == pytest.approx(np.cos(np.deg2rad(degrees)), abs=2e-6)
    assert sine(angle).item() == pytest.approx(np.sin(np.deg2rad(degrees)), abs=2e-6)


def test_angles_within_half_a_turn_stay_as_they_are() -> None:
    angles = np.linspace(-3.1415, 3.1415, 1001, dtype=np.float32)
    np.testing.assert_array_equal(within_half_a_turn(cr.tensor(angles)).numpy(), angles)
