"""Callbacks of `Model.fit`."""

from chainrule.train.callbacks import Callback, History

__all__ = ["Callback", "History"]
