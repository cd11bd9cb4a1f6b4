"""Classes of the user's own that leave out what they must say: the message names the class and what it lacks."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import losses, metrics, optimizers, regularizers
from chainrule.layers import initializers
from chainrule.metrics.metric import Totals


@pytest.mark.parametrize(
    ("base", "lacks"),
    [
        (losses.Loss, "call"),
        (optimizers.Optimizer, "update"),
        (initializers.Initializer, "__call__"),
        (regularizers.Regularizer, "__call__"),
        (Totals, "result"),
        (Totals, "update_state"),
    ],
)
def test_what_cannot_do_its_work_cannot_be_made(base: type, lacks: str) -> None:
    own = type("Own", (base,), {"__module__": __name__})
    with pytest.raises(TypeError, match=f"abstract class Own .*{lacks}"):
        own()


def test_a_layer_without_call_is_a_layer_until_it_is_called() -> None:
    """As in Keras and PyTorch: it may hold other layers that somebody else calls."""
    holder = type("Holder", (cr.layers.Layer,), {"__module__": __name__})
    layer = holder(name="parts")
    layer.first = cr.layers.Dense(2)
    with pytest.raises(NotImplementedError, match=r"^layer 'parts': Holder has no call\(\)$"):
        layer(np.ones((2, 3), np.float32))
    with pytest.raises(NotImplementedError, match=r"^layer 'parts': Holder has no call\(\)$"):
        cr.Sequential([cr.Input((3,)), layer])
    assert layer.first(np.ones((2, 3), np.float32)).shape == (2, 2)


def test_a_metric_without_per_sample_says_so() -> None:
    own = type("Own", (metrics.Metric,), {"__module__": __name__})
    with pytest.raises(NotImplementedError, match=r"^Own has no per_sample\(\)$"):
        own().update_state([1], [1])
