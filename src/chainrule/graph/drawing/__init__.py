"""Graphs as pictures: `scene` says what is drawn, `layered` where it stands, `svg` how it looks."""

from chainrule.graph.drawing.svg import draw

__all__ = ["draw"]
