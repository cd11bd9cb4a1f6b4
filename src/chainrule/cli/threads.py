"""How many threads NumPy's matrix products use while a command runs."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator

__all__ = ["one_blas_thread"]

_CHOSEN_BY_THE_USER = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep matrix products on one thread, unless the environment chooses a number.

    Batches of small images give products too small to share, and OpenBLAS's threads wait by spinning: beside
    other work on two cores an epoch of the digits took 14 s with two threads and 1.6 s with one.  A fixed number
    also keeps the rounding of sums, and so the bits of a run, from depending on the machine's number of cores.
    threadpoolctl, which comes with scikit-learn, sets it; without it nothing is changed.
    """
    with contextlib.ExitStack() as limits:
        if not any(name in os.environ for name in _CHOSEN_BY_THE_USER):
            with contextlib.suppress(ImportError):
                pools = importlib.import_module("threadpoolctl")
                limits.enter_context(pools.threadpool_limits(1, user_api="blas"))
        yield
