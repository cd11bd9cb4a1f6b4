"""A training that reads its samples meanwhile: memory, errors, Ctrl-C, and what is left when it ends."""

from __future__ import annotations

import _thread
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.data import ArraySource, load_npy
from chainrule.data.source import Source
from chainrule.errors import DataError
from chainrule.train import feed
from chainrule.train.feed import Stream

Array = np.ndarray[Any, Any]


class Made(Source):
    """Samples that are made when they are read, with something done before."""

    def __init__(self, count: int, shape: tuple[int, ...] = (4, 4, 1), before: Any = None) -> None:
        self.labels = np.arange(count) % 2
        self.shape, self.dtype = shape, np.dtype(np.uint8)
        self.before = before

    def read(self, number: int) -> Array:
        if self.before is not None:
            self.before(number)
        return np.full(self.shape, number % 256, np.uint8)

    def identity(self, number: int) -> bytes:
        return b"%d" % number


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("chainrule-reader")]


def model(shape: tuple[int, ...] = (4, 4, 1)) -> cr.Model:
    built = cr.Sequential([cr.Input(shape), cr.layers.Rescaling(1 / 255), cr.layers.Flatten(), cr.layers.Dense(2)])
    built.compile("sgd", cr.losses.SparseCategoricalCrossentropy(from_logits=True))
    return built


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("count", [1, 7, 64, 1000])
@pytest.mark.parametrize("chunk", [1, 500, 1 << 22])
def test_chunks_are_the_order_in_whole_groups_of_batches(
    group: int, count: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "CHUNK_BYTES", chunk)
    order = np.random.default_rng(count).permutation(count)
    stream = Stream(Made(count), {"y": np.arange(count)}, 2, group)
    seen: list[Array] = []
    sizes = []
    for part in stream.chunks(order, 8):
        seen.append(part.data["y"][part.rows])
        sizes.append(len(part.rows))
        np.testing.assert_array_equal(part.data["x"][part.rows][:, 0, 0, 0], seen[-1] % 256)
    np.testing.assert_array_equal(np.concatenate(seen), order)
    assert all(size % (8 * group) == 0 for size in sizes[:-1])
    assert readers() == []


@pytest.mark.parametrize("side", [32, 128, 512])
def test_memory_does_not_grow_with_the_pictures(side: int) -> None:
    source = Made(600, (side, side, 3))
    batch = 8
    stream = Stream(source, {"y": source.labels}, 2)
    tracemalloc.start()
    try:
        for _ in stream.chunks(np.arange(600), batch):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < feed.BUFFER_BYTES + (1 << 23)


@pytest.mark.slow
def test_a_mapped_file_is_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3000, 64, 64, 3), np.uint8))  # 37 MB
    np.save(tmp_path / "y.npy", np.arange(3000) % 2)
    source = load_npy(tmp_path / "x.npy", tmp_path / "y.npy")
    net = model((64, 64, 3))
    net.fit(source, batch_size=8, verbose=0, steps_per_epoch=2)
    tracemalloc.start()  # what is mapped does not count, what is copied does
    try:
        net.fit(source, batch_size=8, verbose=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (feed.AHEAD + 1) * feed.CHUNK_BYTES + (1 << 22)


def test_only_the_rows_of_a_chunk_are_touched() -> None:
    touched: list[int] = []

    class Counting(np.ndarray):
        def __getitem__(self, key: Any) -> Any:
            touched.append(int(key))
            return super().__getitem__(key)

    samples = np.zeros((50, 4), np.uint8).view(Counting)
    stream = Stream(ArraySource(samples, np.zeros(50, int)), {}, 2)
    order = np.arange(0, 50, 5)
    for _ in stream.chunks(order, 2):
        pass
    assert sorted(touched) == order.tolist()


@pytest.mark.parametrize("bad", [0, 77, 199])
@pytest.mark.parametrize("workers", [1, 4])
def test_an_error_ends_the_training(bad: int, workers: int) -> None:
    def before(number: int) -> None:
        if number == bad:
            raise DataError(f"'{bad}.jpg': the picture is damaged")

    with pytest.raises(DataError, match=f"'{bad}.jpg': the picture is damaged"):
        model().fit(Made(200, before=before), batch_size=8, workers=workers, verbose=0)
    deadline = time.monotonic() + 10
    while readers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert readers() == []


@pytest.mark.slow
def test_no_thread_is_left_however_fit_ends() -> None:
    model().fit(Made(200), batch_size=8, epochs=2, workers=3, verbose=0, validation_data=Made(20))
    assert readers() == []

    class Stop(cr.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = True

    model().fit(Made(200), batch_size=8, epochs=2, workers=3, verbose=0, callbacks=[Stop()])
    assert readers() == []


@pytest.mark.slow
def test_ctrl_c_ends_the_training_between_two_steps() -> None:
    def before(number: int) -> None:
        time.sleep(0.001)
        if number == 100:
            _thread.interrupt_main()

    history = model().fit(Made(1000, before=before), batch_size=8, epochs=50, workers=2, verbose=0, shuffle=False)
    assert history.interrupted
    assert readers() == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_a_second_ctrl_c_does_not_wait_for_a_file_system_that_hangs() -> None:
    code = """
        import threading
        from tests.train.test_stream import Made, model

        def hang(number):
            print("reading", flush=True)
            threading.Event().wait()

        model().fit(Made(200, before=hang), batch_size=8, workers=1, verbose=0)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    process.send_signal(2)
    time.sleep(0.3)
    process.send_signal(2)
    began = time.monotonic()
    said = process.communicate(timeout=60)[1]
    assert "KeyboardInterrupt" in said
    assert time.monotonic() - began < 15
