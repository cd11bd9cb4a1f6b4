"""The same bits, however a training is run: threads, noise beside it, another process, the cache, one call or many."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
from chainrule.engines import Stop
from chainrule.engines.native import executable
from chainrule.engines.native.executable import Executable as Native
from chainrule.engines.native.threads import get_threads, set_threads
from tests.engines.native.support import SEED, rng, small_data, small_network, step_of
from tests.ops.harness import Array

pytestmark = pytest.mark.usefixtures("no_cache")

STEPS, BATCH_SIZE = 200, 16


def trained(
    threads: int | None = None,
    way: str = "one call",
    steps: int = STEPS,
    gathered: tuple[str, ...] = ("x", "y"),
    wait: Callable[[], object] = lambda: None,
) -> str:
    """A digest of all state after a number of steps, the last of every pass being short."""
    model = small_network()
    x, y = small_data()
    graph = step_of(model, x, y)
    run = Native(graph, batch=BATCH_SIZE, gathered=gathered, threads=threads)
    wait()
    order = np.concatenate([rng(epoch).permutation(len(x)) for epoch in range(-(-steps // 4))])
    each = _batches(order, len(x))[:steps]
    counts = np.array([float(len(rows)) for rows in each])
    scalars = {"learning_rate": np.asarray(0.01), "seed": SEED, "first_row": np.asarray(0, np.uint32)}
    if way == "one call":
        # Steps of one call have equal batches but for the last one: a call for each pass over the data.
        for start in range(0, steps, 4):
            rows = np.concatenate(each[start : start + 4])
            run.run_steps({"x": x, "y": y}, rows, BATCH_SIZE, scalars | {"count": counts[start : start + 4]}, Stop())
    elif way == "one by one":
        for rows, count in zip(each, counts, strict=True):
            run.run_steps({"x": x, "y": y}, rows, BATCH_SIZE, scalars | {"count": count}, Stop())
    else:
        for rows, count in zip(each, counts, strict=True):
            run(x[rows], y[rows], np.asarray(0.01), SEED, np.asarray(0, np.uint32), np.asarray(count))
    return digest({entry.name: entry.variable.data for entry in graph.state})


def _batches(order: Array, samples: int) -> list[Array]:
    """The rows of each step; no batch reaches into the next pass."""
    passes = order.reshape(-1, samples)
    return [part[start : start + BATCH_SIZE] for part in passes for start in range(0, samples, BATCH_SIZE)]


def digest(state: dict[str, Array]) -> str:
    whole = hashlib.sha256()
    for name in sorted(state):
        assert np.isfinite(state[name]).all(), name
        whole.update(name.encode() + state[name].tobytes())
    return whole.hexdigest()


@pytest.fixture(scope="module")
def expected() -> Iterator[str]:
    """The digest of the plainest way: one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHAINRULE_CACHE", "off")
        yield trained(threads=1)


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.slow
def test_any_number_of_threads(expected: str, threads: int) -> None:
    assert trained(threads) == expected


@pytest.mark.slow
def test_the_pools_own_number_of_threads(expected: str) -> None:
    before = get_threads()
    set_threads(5)
    try:
        assert trained() == expected
    finally:
        set_threads(before)


@pytest.mark.slow
def test_fewer_steps_give_another_result(expected: str) -> None:
    """So that the digests can differ at all."""
    assert trained(threads=1, steps=STEPS - 4) != expected


@pytest.mark.slow
@pytest.mark.parametrize("way", ["one by one", "called"])
def test_one_call_or_many_gathered_or_not(expected: str, way: str) -> None:
    assert trained(threads=2, way=way) == expected
    if way == "called":
        assert trained(threads=2, way=way, gathered=()) == expected


HOG = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


@pytest.mark.slow
def test_beside_processes_that_take_the_processor(expected: str) -> None:
    """Threads lose their cores at any moment, and come back anywhere."""
    hogs = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        for threads in (2, 3):
            assert trained(threads) == expected
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


SCRIPT = """
from tests.engines.native.test_determinism import trained
print(trained(threads={threads}))
"""


def in_another_process(threads: int, **variables: str) -> str:
    root = Path(__file__).parents[3]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), *sys.path]),
        "PYTHONHASHSEED": "5",
        **variables,
    }
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(threads=threads)],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env=environment,
    ).stdout.strip()


@pytest.mark.slow
def test_another_process(expected: str) -> None:
    assert in_another_process(2, CHAINRULE_CACHE="off") == expected


@pytest.mark.slow
def test_code_from_the_cache(expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process fills the cache, another takes the code from it and compiles nothing."""
    monkeypatch.setenv("CHAINRULE_CACHE", str(tmp_path))
    assert in_another_process(1) == expected
    assert list(tmp_path.iterdir())

    def refuse(*_: object, **__: object) -> bytes:
        raise AssertionError("compiled although the cache holds it")

    monkeypatch.setattr(executable, "compile_objects", refuse)
    assert trained(threads=2) == expected


@pytest.mark.slow
def test_steps_of_two_models_at_once(expected: str) -> None:
    """Two trainings in two Python threads share the pool, and disturb each other's time only."""
    found: list[str] = []
    together = threading.Barrier(2)

    def train() -> None:
        found.append(trained(threads=2, wait=together.wait))

    other = threading.Thread(target=train)
    other.start()
    found.append(trained(threads=2, wait=together.wait))
    other.join()
    assert found == [expected, expected]


@pytest.mark.slow
def test_fit_gives_the_same_bits_on_any_number_of_threads() -> None:
    before = get_threads()
    results = []
    try:
        for threads in (1, 2, 7):
            set_threads(threads)
            model = small_network()
            x, y = small_data()
            history = model.fit(x, y, batch_size=BATCH_SIZE, epochs=3, verbose=0)
            weights = [weight.tobytes() for weight in model.get_weights()]
            results.append((weights, history.history["loss"], model.predict(x).tobytes()))
            cr.set_seed(0)
    finally:
        set_threads(before)
    assert results[0] == results[1] == results[2]
