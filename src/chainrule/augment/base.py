"""What an augmentation is: a random change of every sample, computed inside the training step.

Each draw is named by seed, epoch, the sample's number in its data set, and the augmentation's place in its list.  So a
sample is changed in the same way whatever batch, thread or process it comes in, and otherwise in the next epoch.
"""

from __future__ import annotations

import inspect
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chainrule.errors import ConfigError
from chainrule.graph.tensor import Tensor
from chainrule.ops.random import random_normal, random_uniform

__all__ = ["Augmentation", "Key", "Labels", "augmented", "described", "get_augmentation"]

_CLASSES: dict[str, Callable[..., Augmentation]] = {}


@dataclass
class Key:
    """Draws for one augmentation of a batch.

    Attributes:
        seed, epoch: the run-time key, as `ops.random_bits` takes it.
        samples: each sample's number, uint32 ``(batch,)``.
        place: the augmentation's place in the list.
    """

    seed: Tensor
    epoch: Tensor
    samples: Tensor
    place: int
    _drawn: int = field(default=0, init=False)

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: Sequence[int] = ()) -> Tensor:
        """Uniform numbers in [low, high) for each sample: ``(batch, *shape)``, float32."""
        unit = random_uniform(
            self.seed, self.epoch, self.samples, shape=(*self.samples.shape, *(shape or (1,))), stream=self._stream()
        )
        return unit * (high - low) + low

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Normal numbers for each sample: ``(batch, *shape)``, float32."""
        return random_normal(
            self.seed, self.epoch, self.samples, shape=(*self.samples.shape, *shape), stream=self._stream()
        )

    def _stream(self) -> int:
        self._drawn += 1
        return zlib.crc32(f"augmentation/{self.place}/{self._drawn}".encode())


Labels = list[tuple[Tensor, Tensor | None]]
"""The labels of a batch with the share of each in the loss; None is all of it."""


class Augmentation(ABC):
    """Base class: subclasses write `change`; their constructor's arguments become attributes of the same names."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _CLASSES[cls.__name__] = cls

    @abstractmethod
    def change(self, x: Tensor, key: Key) -> Tensor:
        """The changed samples.

        Args:
            x: ``(batch, height, width, channels)``, float32, in the units of the data.
            key: what to draw from.
        """

    def apply(self, x: Tensor, labels: Labels, key: Key) -> tuple[Tensor, Labels]:
        """As `change`, with labels, for augmentations that mix samples."""
        return self.change(x, key), labels

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = [name for name in inspect.signature(type(self).__init__).parameters if name != "self"]
        return {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self.get_config().items())})"


def augmented(
    augmentations: Sequence[Augmentation], x: Tensor, y: Tensor, seed: Tensor, epoch: Tensor, samples: Tensor
) -> tuple[Tensor, Labels]:
    """A batch after all augmentations, in their order."""
    labels: Labels = [(y, None)]
    for place, augmentation in enumerate(augmentations):
        x, labels = augmentation.apply(x, labels, Key(seed, epoch, samples, place))
    return x, labels


def described(augmentation: Augmentation) -> dict[str, Any]:
    """An augmentation as plain data; `get_augmentation` reads it."""
    return {"class": type(augmentation).__name__, "config": augmentation.get_config()}


def get_augmentation(value: Any) -> Augmentation:
    """An augmentation from its description, or itself.

    Raises:
        ConfigError: there is none of that name.
    """
    if isinstance(value, Augmentation):
        return value
    if isinstance(value, dict) and value.get("class") in _CLASSES:
        return _CLASSES[value["class"]](**value["config"])
    named = value.get("class") if isinstance(value, dict) else value
    raise ConfigError(f"unknown augmentation {named!r}; expected one of {', '.join(sorted(_CLASSES))}")
