"""The exceptions that chainrule raises.

Every error the library raises on purpose derives from [`ChainruleError`][] and, where Python has a
built-in class for the situation, from that class too, so that ``except ValueError`` keeps working.

A message is one sentence that names the layer or file, what came, and what was expected::

    layer 'conv2d_1': the kernel 5x5 does not fit the input 3x3 (height x width, padding included);
    expected an input of at least 5x5, so use padding='same' or a smaller kernel
"""

from __future__ import annotations

__all__ = [
    "ChainruleError",
    "CheckpointError",
    "ConfigError",
    "DTypeError",
    "DataError",
    "EngineError",
    "GradientError",
    "GraphError",
    "MissingDependencyError",
    "ModelFileError",
    "OpError",
    "RunFolderError",
    "ShapeError",
    "TraceError",
]


class ChainruleError(Exception):
    """Base class of every error that chainrule raises on purpose."""


class ShapeError(ChainruleError, ValueError):
    """A rank, shape, channel count or axis does not fit the op or layer that received it."""


class DTypeError(ChainruleError, TypeError):
    """A dtype does not fit, or two dtypes were mixed without an explicit cast."""


class ConfigError(ChainruleError, ValueError):
    """An argument, option or name is not one that the library knows."""


class DataError(ChainruleError, ValueError):
    """Training data, labels or a data file cannot be used as given."""


class ModelFileError(ChainruleError, ValueError):
    """A model file is truncated, corrupted, or not a chainrule model."""


class RunFolderError(ChainruleError, OSError):
    """A run folder cannot be created, read or written."""


class GraphError(ChainruleError, RuntimeError):
    """A graph breaks one of its laws; the message names the law, the node and the pass."""


class TraceError(ChainruleError, TypeError):
    """Python asked a traced tensor for something only a concrete tensor has, such as its value."""


class GradientError(ChainruleError, RuntimeError):
    """A gradient was asked for that does not exist, such as that of an op without a VJP."""


class OpError(ChainruleError, ValueError):
    """An op is registered twice, unknown, or its rules contradict one another."""


class EngineError(ChainruleError, RuntimeError):
    """An engine cannot run what it was given; raised before the first step."""


class CheckpointError(ChainruleError):
    """A checkpoint is damaged, or belongs to another training."""


class MissingDependencyError(ChainruleError, ImportError):
    """An optional dependency is absent; the message names the extra that installs it."""
