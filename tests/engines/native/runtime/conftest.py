"""Fixtures of the tests of driver, call block and threads."""

from __future__ import annotations

import pytest

from chainrule.engines.native import threads
from tests.engines.native.runtime.running import Loaded
from tests.engines.native.toys import load_toys


@pytest.fixture(scope="module")
def quick() -> Loaded:
    """Toys whose units take some nanoseconds: threads meet all the time."""
    return load_toys(1)


@pytest.fixture(scope="module")
def slow() -> Loaded:
    """Toys whose units take about a microsecond: threads share the work."""
    return load_toys(800)


@pytest.fixture
def pool() -> threads.Pool:
    """A pool of its own."""
    return threads.Pool()
