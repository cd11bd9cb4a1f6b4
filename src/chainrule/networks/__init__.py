"""Named networks: functions from the shape of an image and the number of classes to a model.

Every network rescales its input itself, so that a saved model takes pixels as the data set holds them,
and ends in a softmax, so that its outputs are probabilities.
"""

from chainrule.networks.named import NETWORKS, NetworkFunction, get_network
from chainrule.networks.normalised import conv32_conv64_conv128, conv32_conv64_conv128_conv256
from chainrule.networks.plain import conv32_conv64_dense64, conv32_dense128, digits
from chainrule.networks.residual import resnet20

__all__ = [
    "NETWORKS",
    "NetworkFunction",
    "conv32_conv64_conv128",
    "conv32_conv64_conv128_conv256",
    "conv32_conv64_dense64",
    "conv32_dense128",
    "digits",
    "get_network",
    "resnet20",
]
