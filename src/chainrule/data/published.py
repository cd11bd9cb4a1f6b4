"""The data sets that can be had by name: their files as they were published, and where on the web they are.

What counts is the SHA-256 of the *unpacked* content, so a mirror may compress as it likes.  The hashes were computed
from copies that are bit-identical to the official files.  The addresses are those that are publicly known; they are
*unverified*, since nothing was fetched from them when this was written.  An address that has moved or serves something
else does no harm: the next one is tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DATA_SETS", "Published", "PublishedFile"]


@dataclass(frozen=True)
class PublishedFile:
    """A file as it was published.

    Attributes:
        stem: such as ``train-images``.
        rank: of the idx file.
        size: in bytes, unpacked.
        sha256: of the unpacked content.
    """

    stem: str
    rank: int
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """What it is called, unpacked; addresses have it with ``.gz``."""
        return f"{self.stem}-idx{self.rank}-ubyte"


@dataclass(frozen=True)
class Published:
    """A data set that can be fetched: its files, and the folders on the web that have them."""

    files: tuple[PublishedFile, ...]
    addresses: tuple[str, ...]


def _four(*facts: tuple[int, str]) -> tuple[PublishedFile, ...]:
    stems = (("train-images", 3), ("train-labels", 1), ("t10k-images", 3), ("t10k-labels", 1))
    return tuple(PublishedFile(*stem, *fact) for stem, fact in zip(stems, facts, strict=True))


DATA_SETS: Mapping[str, Published] = {
    "mnist": Published(
        _four(
            (47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
            (60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
            (7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
            (10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
        ),
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            "http://yann.lecun.com/exdb/mnist",
        ),
    ),
    "fashion-mnist": Published(
        _four(
            (47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
            (60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
            (7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
            (10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
        ),
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
        ),
    ),
}
"""What can be fetched by name."""
