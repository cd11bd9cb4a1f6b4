"""Layers, with Keras 3's names, arguments and defaults."""

from chainrule.layers.activation import ELU, Activation, LeakyReLU, PReLU, ReLU, Softmax
from chainrule.layers.conv import Conv2D
from chainrule.layers.dense import Dense
from chainrule.layers.dropout import Dropout
from chainrule.layers.layer import Layer
from chainrule.layers.merge import Add, Concatenate, Multiply, Subtract
from chainrule.layers.norm import BatchNormalization
from chainrule.layers.pool import AveragePooling2D, GlobalAveragePooling2D, MaxPooling2D
from chainrule.layers.shape import Flatten, Rescaling, Reshape
from chainrule.layers.symbol import Input

__all__ = [
    "ELU",
    "Activation",
    "Add",
    "AveragePooling2D",
    "BatchNormalization",
    "Concatenate",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "Input",
    "Layer",
    "LeakyReLU",
    "MaxPooling2D",
    "Multiply",
    "PReLU",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Softmax",
    "Subtract",
]
