"""Data sets: readers for MNIST's idx format, NumPy archives, folders of pictures, and scikit-learn's digits."""

from __future__ import annotations

from chainrule.data.dataset import Dataset
from chainrule.data.digits import digits
from chainrule.data.download import Download, data_folder, fetch
from chainrule.data.folder import Pictures, picture_folder, picture_list
from chainrule.data.idx import fashion_mnist, mnist, read_idx
from chainrule.data.npy import load_npy
from chainrule.data.npz import load_npz
from chainrule.data.parts import PictureParts, picture_folders, picture_lists
from chainrule.data.pictures import picture_size, read_picture
from chainrule.data.source import ArraySource, Part, Source

__all__ = [
    "ArraySource",
    "Dataset",
    "Download",
    "Part",
    "PictureParts",
    "Pictures",
    "Source",
    "data_folder",
    "digits",
    "fashion_mnist",
    "fetch",
    "load_npy",
    "load_npz",
    "mnist",
    "picture_folder",
    "picture_folders",
    "picture_list",
    "picture_lists",
    "picture_size",
    "read_idx",
    "read_picture",
]
