"""MNIST: mean test accuracy of some seeds, chainrule and PyTorch with the same recipes.

Pixels in 0..1, Glorot-uniform kernels, zero biases, Adam, a new order each epoch, the last short batch included. The
learning rate is 0.001 throughout (``constant``), or falls from there to 0 along half a cosine, step by step
(``cosine``). A framework draws its own first weights and orders from the seed.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.networks import NETWORKS, first_weights
from benchmarks.peers import KEEP_PAGES
from benchmarks.protocol import ROOT
from benchmarks.report import markdown_table

__all__ = ["FRAMEWORKS", "RATES", "measure", "table"]

FRAMEWORKS = ("chainrule", "torch")
RATES = ("constant", "cosine")


def measure(
    network: str, data: str, seeds: Sequence[int], epochs: int, batch: int, threads: int, rates: Sequence[str] = RATES
) -> dict[str, Any]:
    """Test accuracies and training seconds by framework and learning rate, a seed of one and then of the other."""
    names = {f"{name}, {rate}": (name, rate) for rate in rates for name in FRAMEWORKS}
    found: dict[str, Any] = {label: {"accuracy": [], "seconds": []} for label in names}
    counts = {"CHAINRULE_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    for seed in seeds:
        for label, (framework, rate) in names.items():
            asked = {"framework": framework, "rate": rate, "network": network, "data": data, "seed": seed}
            arguments = json.dumps({**asked, "epochs": epochs, "batch": batch, "threads": threads})
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.accuracy", arguments],
                stdout=subprocess.PIPE,
                cwd=ROOT,
                env={**os.environ, **counts, **(KEEP_PAGES if framework == "torch" else {})},
                text=True,
                check=True,
            )
            one = json.loads(done.stdout)
            print(f"seed {seed}: {label} {one['accuracy']:.2%} in {one['seconds']:.0f} s", flush=True)
            for key, value in one.items():
                found[label][key].append(value)
    return found


def table(found: dict[str, Any], network: str, epochs: int, batch: int) -> str:
    """The readings as Markdown."""
    rows = [
        [
            name,
            f"{statistics.mean(one['accuracy']):.2%}",
            f"{min(one['accuracy']):.2%}",
            f"{max(one['accuracy']):.2%}",
            f"{statistics.median(one['seconds']):.1f}",
        ]
        for name, one in found.items()
    ]
    seeds = len(next(iter(found.values()))["accuracy"])
    title = f"## MNIST, {network}, {epochs} epochs, batch {batch}, {seeds} seeds"
    return f"{title}\n\n" + markdown_table(("framework, learning rate", "mean", "lowest", "highest", "seconds"), rows)


def _train(
    framework: str, rate: str, network: str, data: str, seed: int, epochs: int, batch: int, threads: int
) -> dict[str, Any]:
    """One training, in this process."""
    import numpy as np

    import chainrule as cr

    digits = cr.data.mnist(Path(data))
    train, test = (
        np.asarray(x, np.float32).reshape(-1, 28, 28, 1) / np.float32(255) for x in (digits.x_train, digits.x_test)
    )
    y_train, y_test = (np.asarray(y, np.int64) for y in (digits.y_train, digits.y_test))
    run = _chainrule if framework == "chainrule" else _torch
    logits, seconds = run(network, rate, train, y_train, test, seed, epochs, batch, threads)
    return {"accuracy": float((logits.argmax(1) == y_test).mean()), "seconds": seconds}


def _chainrule(
    network: str, rate: str, x: Any, y: Any, test: Any, seed: int, epochs: int, batch: int, threads: int
) -> tuple[Any, float]:
    import time

    import chainrule as cr
    from benchmarks.workers.common import sequential

    cr.set_seed(seed)
    model = sequential(cr, NETWORKS[network], None)
    if rate == "cosine":
        steps = epochs * -(-len(x) // batch)
        model.optimizer.learning_rate = cr.optimizers.schedules.CosineDecay(model.optimizer.learning_rate, steps)
    start = time.perf_counter()
    model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0)
    return model.predict(test, batch_size=1000), time.perf_counter() - start


def _torch(
    network: str, rate: str, x: Any, y: Any, test: Any, seed: int, epochs: int, batch: int, threads: int
) -> tuple[Any, float]:
    import time

    import torch
    import torch.nn.functional as F

    from benchmarks.workers.common import EPSILON, LEARNING_RATE
    from benchmarks.workers.torch_worker import build

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    model = build(NETWORKS[network], first_weights(NETWORKS[network], seed)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, eps=EPSILON, fused=True)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1.0 if rate == "constant" else (1 + math.cos(math.pi * step / steps)) / 2
    )
    pictures, labels, held_out = (torch.from_numpy(a) for a in (x.transpose(0, 3, 1, 2), y, test.transpose(0, 3, 1, 2)))
    start = time.perf_counter()
    for _ in range(epochs):
        for rows in torch.randperm(len(pictures)).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(model(pictures[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        logits = torch.cat([model(part) for part in held_out.split(1000)])
    return logits.numpy(), time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(_train(**json.loads(sys.argv[1]))))
