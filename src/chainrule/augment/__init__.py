"""Augmentations: random changes of the training's samples, computed inside the step."""

from chainrule.augment.base import Augmentation, Key, get_augmentation
from chainrule.augment.colour import Cutout, GaussianNoise, RandomColour
from chainrule.augment.geometry import RandomAffine, RandomCrop, RandomFlip
from chainrule.augment.mixing import MixUp

__all__ = [
    "Augmentation",
    "Cutout",
    "GaussianNoise",
    "Key",
    "MixUp",
    "RandomAffine",
    "RandomColour",
    "RandomCrop",
    "RandomFlip",
    "get_augmentation",
]
