"""What every optimizer can do beside its own rule: decay, clipping, averages, accumulation, rates by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from chainrule import ops
from chainrule.checks import check_positive
from chainrule.errors import ConfigError
from chainrule.graph.tensor import Tensor

__all__ = ["CommonOptions", "OptimizerOptions", "in_unit_interval"]


class OptimizerOptions(TypedDict, total=False):
    """Keyword arguments of every optimizer; see `CommonOptions`."""

    weight_decay: float | None
    clipvalue: float | None
    clipnorm: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    gradient_accumulation_steps: int | None
    rate_multipliers: Mapping[str, float] | None
    no_decay: Sequence[str]


@dataclass(frozen=True)
class CommonOptions:
    """The checked keyword arguments that every optimizer takes.

    Attributes:
        weight_decay: decoupled decay: ``w -= rate * weight_decay * w`` before the update.  (L2 as part of the loss is a
            layer's `kernel_regularizer`.)
        clipvalue: every element of a gradient is brought into ``[-clipvalue, clipvalue]``.
        clipnorm: every weight's gradient is shortened to this norm where it is longer.
        global_clipnorm: all gradients are shortened together where their common norm is larger.
        use_ema: keep a running average of every weight, ``a = ema_momentum * a + (1 - ema_momentum) * w``, which is w
            itself after the first step; that of a weight that joins later begins with its value then; see
            `callbacks.SwapEMAWeights`.
        ema_momentum: in [0, 1).
        gradient_accumulation_steps: batches whose gradients are summed before one update; the update is that of one
            batch of all their samples.
        rate_multipliers: by the beginning of a weight's name, such as a layer's path: what the learning rate is
            multiplied by; the longest beginning counts.
        no_decay: weights with one of these in their names are not decayed.

    Sources: Loshchilov and Hutter, ICLR 2019 (decay); Pascanu, Mikolov and Bengio, ICML 2013 (norms); Polyak and
    Juditsky, SIAM J. Control 1992 (averages).
    """

    weight_decay: float | None = None
    clipvalue: float | None = None
    clipnorm: float | None = None
    global_clipnorm: float | None = None
    use_ema: bool = False
    ema_momentum: float = 0.99
    gradient_accumulation_steps: int | None = None
    rate_multipliers: Mapping[str, float] | None = None
    no_decay: Sequence[str] = ()

    @staticmethod
    def checked(kind: str, options: Mapping[str, Any]) -> CommonOptions:
        """The options of an optimizer class.

        Raises:
            ConfigError: an unknown one, or a value that is out of range.
        """
        known = [field.name for field in fields(CommonOptions)]
        for name in options:
            if name not in known:
                raise ConfigError(f"{kind}: unknown argument {name!r}; beside its own it takes {', '.join(known)}")
        found = CommonOptions(**options)
        for name in ("weight_decay", "clipvalue", "clipnorm", "global_clipnorm"):
            _check_size(getattr(found, name), f"{kind}: {name}", zero=name == "weight_decay")
        clips = [name for name in ("clipvalue", "clipnorm", "global_clipnorm") if getattr(found, name) is not None]
        if len(clips) > 1:
            raise ConfigError(f"{kind}: give one of {' and '.join(clips)}, not both")
        in_unit_interval(found.ema_momentum, f"{kind}: ema_momentum")
        if found.gradient_accumulation_steps is not None:
            check_positive(found.gradient_accumulation_steps, f"{kind}: gradient_accumulation_steps (or None)")
        for name, factor in (found.rate_multipliers or {}).items():
            if not (_is_number(factor) and 0 <= factor < float("inf")):
                raise ConfigError(f"{kind}: the rate multiplier of {name!r} must be a number >= 0, got {factor!r}")
        return found

    def config(self) -> dict[str, Any]:
        """What differs from the defaults, as plain data."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {name: value for name, value in values.items() if value != getattr(_DEFAULTS, name)}
        if "rate_multipliers" in changed:
            changed["rate_multipliers"] = dict(changed["rate_multipliers"])
        if "no_decay" in changed:
            changed["no_decay"] = list(changed["no_decay"])
        return changed

    @property
    def accumulated(self) -> int:
        """How many batches make one update."""
        return self.gradient_accumulation_steps or 1

    def decays(self, name: str) -> bool:
        """Whether a weight of that name is decayed."""
        return bool(self.weight_decay) and not any(part in name for part in self.no_decay)

    def multiplier(self, name: str) -> float:
        """What the learning rate of a weight is multiplied by."""
        found = [start for start in self.rate_multipliers or {} if name == start or name.startswith(f"{start}/")]
        return float((self.rate_multipliers or {})[max(found, key=len)]) if found else 1.0

    def clipped(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients, no larger than the options allow."""
        if self.clipvalue is not None:
            return [ops.clip(gradient, -self.clipvalue, self.clipvalue) for gradient in gradients]
        if self.clipnorm is not None:
            return [gradient * _shortening(_square(gradient), self.clipnorm, gradient) for gradient in gradients]
        if self.global_clipnorm is not None:
            square = sum((_square(gradient) for gradient in gradients[1:]), start=_square(gradients[0]))
            return [gradient * _shortening(square, self.global_clipnorm, gradient) for gradient in gradients]
        return list(gradients)


_DEFAULTS = CommonOptions()


def _square(gradient: Tensor) -> Tensor:
    """The squared norm, in float64, so that the squares of large float32 do not overflow."""
    wide = ops.cast(gradient, "float64")
    return ops.sum(wide * wide)


def _shortening(square: Tensor, limit: float, gradient: Tensor) -> Tensor:
    """``min(1, limit / norm)``; NaN where the norm is."""
    norm = ops.sqrt(square)
    return ops.cast(limit / ops.maximum(norm, limit), gradient.dtype)


def _check_size(value: Any, what: str, *, zero: bool) -> None:
    if value is None or (zero and value == 0):
        return
    if not _is_number(value) or not 0 < value < float("inf"):
        raise ConfigError(f"{what} must be a positive number or None, got {value!r}")


def in_unit_interval(value: Any, what: str) -> float:
    """A decay rate.

    Raises:
        ConfigError: outside [0, 1).
    """
    if not _is_number(value) or not 0 <= value < 1:
        raise ConfigError(f"{what} lies in [0, 1), got {value!r}")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
