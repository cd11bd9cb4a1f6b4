"""Data sets: readers for MNIST's idx format and NumPy archives, and scikit-learn's digits."""

from __future__ import annotations

from chainrule.data.dataset import Dataset
from chainrule.data.digits import digits
from chainrule.data.idx import fashion_mnist, mnist, read_idx
from chainrule.data.npz import load_npz

__all__ = ["Dataset", "digits", "fashion_mnist", "load_npz", "mnist", "read_idx"]
