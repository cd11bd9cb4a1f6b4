"""The problem that all kernels of a convolution share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from chainrule.engines.native.maps import MapCopy
from chainrule.engines.native.products.tile import InPanels
from chainrule.engines.native.request import Request
from chainrule.engines.native.types import Type, type_of
from chainrule.graph.dims import Size
from chainrule.graph.tensor import Node

__all__ = ["Pair", "Problem", "takes"]

Pair: TypeAlias = tuple[int, int]

_FACTS = ("image", "taps", "count", "stride", "dilation", "pads", "channels", "outputs")


def takes(node: Node, form: Mapping[str, Any]) -> bool:
    """Whether a convolution is one for the generators: no groups, no empty axes."""
    sizes = (*form["taps"], *form["image"], *form["count"], form["channels"], form["outputs"])
    return form["groups"] == 1 and all(isinstance(size, int) and size > 0 for size in sizes)


@dataclass(frozen=True)
class Problem:
    """A convolution without groups.

    Attributes:
        type: scalar type.
        samples: batch axis.
        panel: channels per panel.
        image, taps, count, stride, dilation: (vertical, horizontal).
        pads: ((top, bottom), (left, right)).
        channels, outputs: C and K.
    """

    type: Type
    samples: Size
    panel: int
    image: Pair
    taps: Pair
    count: Pair
    stride: Pair
    dilation: Pair
    pads: tuple[Pair, Pair]
    channels: int
    outputs: int

    @staticmethod
    def of(request: Request) -> Problem:
        """The problem that is asked about."""
        facts = {name: request.form[name] for name in _FACTS}
        samples = request.node.inputs[0].shape[0]
        return Problem(type_of(request.result.dtype), samples, request.panel, **facts)

    @property
    def x_size(self) -> int:
        """Elements of one input map."""
        return self.image[0] * self.image[1] * self.channels

    @property
    def y_size(self) -> int:
        """Elements of one output map."""
        return self.count[0] * self.count[1] * self.outputs

    @property
    def x_strides(self) -> Pair:
        """From one row of an input map to the next, and from one pixel to the next."""
        return self.image[1] * self.channels, self.channels

    @property
    def y_strides(self) -> Pair:
        """From one row of an output map to the next, and from one pixel to the next."""
        return self.count[1] * self.outputs, self.outputs

    @property
    def wide_y_strides(self) -> Pair:
        """The same where the channels of a pixel fill their panels."""
        return self.count[1] * self.output_panels.width, self.output_panels.width

    @property
    def taps_size(self) -> int:
        """Rows of the packed weights."""
        return self.taps[0] * self.taps[1] * self.channels

    @property
    def input_panels(self) -> InPanels:
        """C in panels."""
        return InPanels(self.channels, self.panel)

    @property
    def output_panels(self) -> InPanels:
        """K in panels."""
        return InPanels(self.outputs, self.panel)

    @property
    def framed(self) -> MapCopy:
        """The input map into its frame of zeros."""
        (top, bottom), (left, right) = self.pads
        row = (left + self.image[1] + right) * self.channels
        frame = (top, bottom, left, right)
        return MapCopy(self.type, *self.image, self.channels, self.x_strides, (row, self.channels), frame)
