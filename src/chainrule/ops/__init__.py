"""The ops: one room per family, each with formula, shape rule, NumPy rule, gradients and test cases."""

from chainrule.ops.activation import elu, gelu, leaky_relu, prelu, relu, sigmoid, silu, softplus, tanh
from chainrule.ops.arithmetic import add, divide, multiply, negative, power, subtract
from chainrule.ops.broadcast import broadcast_to, element_count, sum_to
from chainrule.ops.comparison import (
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    not_equal,
    where,
)
from chainrule.ops.conv import conv2d, conv2d_input_grad, conv2d_kernel_grad
from chainrule.ops.dropout import dropout
from chainrule.ops.exponential import erf, exp, log, sqrt
from chainrule.ops.extremum import abs, clip, maximum, minimum, sign
from chainrule.ops.indexing import gather, one_hot, scatter_add
from chainrule.ops.linear import dense, matmul
from chainrule.ops.norm import batch_norm, batch_norm_inference
from chainrule.ops.pool import avg_pool2d, avg_unpool2d, max_pool2d, max_pool2d_gather, max_unpool2d
from chainrule.ops.random import (
    random_bernoulli,
    random_bits,
    random_normal,
    random_permutation,
    random_uniform,
)
from chainrule.ops.reduce import argmax, first_max_mask, max, mean, sum, var
from chainrule.ops.shape import concat, expand_dims, pad, reshape, slice, squeeze, transpose
from chainrule.ops.softmax import log_softmax, softmax
from chainrule.ops.structure import cast, identity, stop_gradient

__all__ = [
    "abs",
    "add",
    "argmax",
    "avg_pool2d",
    "avg_unpool2d",
    "batch_norm",
    "batch_norm_inference",
    "broadcast_to",
    "cast",
    "clip",
    "concat",
    "conv2d",
    "conv2d_input_grad",
    "conv2d_kernel_grad",
    "dense",
    "divide",
    "dropout",
    "element_count",
    "elu",
    "equal",
    "erf",
    "exp",
    "expand_dims",
    "first_max_mask",
    "gather",
    "gelu",
    "greater",
    "greater_equal",
    "identity",
    "leaky_relu",
    "less",
    "less_equal",
    "log",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "matmul",
    "max",
    "max_pool2d",
    "max_pool2d_gather",
    "max_unpool2d",
    "maximum",
    "mean",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "one_hot",
    "pad",
    "power",
    "prelu",
    "random_bernoulli",
    "random_bits",
    "random_normal",
    "random_permutation",
    "random_uniform",
    "relu",
    "reshape",
    "scatter_add",
    "sigmoid",
    "sign",
    "silu",
    "slice",
    "softmax",
    "softplus",
    "sqrt",
    "squeeze",
    "stop_gradient",
    "subtract",
    "sum",
    "sum_to",
    "tanh",
    "transpose",
    "var",
    "where",
]
