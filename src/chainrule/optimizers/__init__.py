"""Optimizers: how gradients change parameters."""

from chainrule.optimizers import schedules
from chainrule.optimizers.adam import Adam, AdamW
from chainrule.optimizers.optimizer import Optimizer, get_optimizer
from chainrule.optimizers.rmsprop import RMSprop
from chainrule.optimizers.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "get_optimizer", "schedules"]
