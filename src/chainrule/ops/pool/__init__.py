"""Max and average pooling, and the unpoolings that are their gradients."""

from chainrule.ops.pool.avg_pool import avg_pool2d, avg_unpool2d
from chainrule.ops.pool.max_pool import max_pool2d, max_pool2d_gather, max_unpool2d

__all__ = ["avg_pool2d", "avg_unpool2d", "max_pool2d", "max_pool2d_gather", "max_unpool2d"]
