"""Callbacks: what happens around the steps of `fit`, with Keras's names."""

from chainrule.train.callback import Callback, History, Logs
from chainrule.train.callbacks.logs import CSVLogger, JSONLogger, LambdaCallback, TensorBoard
from chainrule.train.callbacks.rates import LearningRateScheduler, ReduceLROnPlateau
from chainrule.train.callbacks.saving import BackupAndRestore, ModelCheckpoint, SwapEMAWeights
from chainrule.train.callbacks.stopping import EarlyStopping, TerminateOnNaN

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "JSONLogger",
    "LambdaCallback",
    "LearningRateScheduler",
    "Logs",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "SwapEMAWeights",
    "TensorBoard",
    "TerminateOnNaN",
]
