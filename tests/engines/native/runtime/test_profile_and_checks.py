"""Times of kernels, and the checked build."""

from __future__ import annotations

import time

from chainrule.engines.native import threads
from tests.engines.native.runtime.running import planned
from tests.engines.native.toys import ToyCall, load_toys


def test_the_profile_names_where_the_time_goes() -> None:
    call, expected = planned(load_toys(3000, profile=True), [40] * 300)
    start = time.perf_counter()
    threads.run(call.driver.entry, call.block, 2)
    spent = time.perf_counter() - start
    assert call.result == expected
    mix, change, total = call.block.times()
    assert [stage.name for stage in (mix, change, total)] == ["mix", "low, high", "sum"]
    assert [name for name, _ in change.kernels] == ["low", "high"]
    assert all(seconds > 0 for stage in (mix, change, total) for _, seconds in stage.kernels)
    together = mix.seconds + change.seconds + total.seconds
    assert 0.1 * spent < together <= spent
    assert mix.seconds > 0.5 * together
    assert mix.kernels[0][1] <= 2 * mix.seconds
    call.block.clear_times()
    assert [stage.seconds for stage in call.block.times()] == [0, 0, 0]


def test_a_checked_build_reports_a_stray_access() -> None:
    call, expected = planned(load_toys(1, checked=True), [3, 40, 64])
    driver = call.driver
    threads.run(driver.entry, call.block, 2)
    assert driver.stray() is None
    assert call.result == expected
    threads.run(driver.entry, ToyCall(driver, [65]).block, 1)
    stray = driver.stray()
    assert stray is not None
    assert stray[1:] == (64, 64)
    assert driver.stray() is None
