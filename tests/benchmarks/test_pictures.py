"""The benchmark of training from picture files, on a few small ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import chainrule as cr
from benchmarks import pictures
from benchmarks.networks import resnet20


def test_the_network_costs_what_resnet20_costs() -> None:
    network = resnet20(cr, (32, 32, 3))
    convolutions = [layer for layer in network.layers if isinstance(layer, cr.layers.Conv2D)]
    assert len(convolutions) == 19 + 2  # and two that widen what goes past a block
    assert 270_000 < network.count_params() < 276_000


@pytest.mark.slow
def test_files_and_arrays_reach_the_same_loss(tmp_path: Path) -> None:
    for number in range(12):
        place = tmp_path / "ab"[number % 2] / f"{number}.jpg"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(place)
    jobs = [pictures.Job(kind, str(tmp_path), 4, 2, 2) for kind in pictures.KINDS]
    found = pictures.measure(jobs, threads=1, rounds=1, extra={})
    (files,), (arrays,) = found["files"], found["arrays"]
    assert files["loss"] == arrays["loss"]
    assert (files["samples"], files["data_bytes"], arrays["data_bytes"]) == (8, 0, 12 * 8 * 8 * 3)
    assert files["waited"] > arrays["waited"] == 0
    table = pictures.table(found)
    assert "2 steps" in table
    assert table.count("\n| files |") == table.count("\n| arrays |") == 1
