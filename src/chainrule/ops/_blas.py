"""Matrix products whose bits do not depend on the number of threads.

How a BLAS splits a sum over threads changes its rounding, so the NumPy rules take their products on one thread:
the same seed then gives the same bits on any number of cores.  Products of small images are too small to share
anyway; beside other work the waiting threads of OpenBLAS cost more than they do.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np

from chainrule.graph.op import Array

__all__ = ["product"]


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController  # looks at every loaded library, so once and late

    return ThreadpoolController()


class _OneThread:
    """Holds BLAS at one thread while any Python thread is inside, and then gives back what it had."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit = _controller().limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.restore_original_limits()


_ONE_THREAD = _OneThread()


def product(a: Array, b: Array) -> Array:
    """``a @ b`` on one thread."""
    with _ONE_THREAD:
        result: Array = np.matmul(a, b)
    return result
