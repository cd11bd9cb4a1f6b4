"""Optimizers: how gradients change parameters."""

from chainrule.optimizers.adam import Adam
from chainrule.optimizers.optimizer import Optimizer, get_optimizer
from chainrule.optimizers.rmsprop import RMSprop
from chainrule.optimizers.sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer", "RMSprop", "get_optimizer"]
