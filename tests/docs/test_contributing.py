"""CONTRIBUTING's op: added to a copy of the package by one file and one line, and used from outside it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.graph import registered_ops
from tests.ops.harness import Trial, pullback, run_eagerly, run_traced

ROOT = Path(__file__).parents[2]


def _blocks() -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.slow
def test_one_file_and_one_line_add_an_op_to_the_package(tmp_path: Path) -> None:
    """The whole harness runs on the new op in a copy of the package; no other file knows of it."""
    room, line = _blocks()
    site = tmp_path / "site-packages"
    package = site / "chainrule"
    shutil.copytree(Path(cr.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "ops" / "softsign.py").write_text(room, encoding="utf-8")
    with (package / "ops" / "__init__.py").open("a", encoding="utf-8") as file:
        file.write(line)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    environment.pop("CHAINRULE_TEST_SOURCE", None)
    found = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "softsign"),
            *(str(ROOT / "tests" / name) for name in ("ops/test_registry.py", "docs/test_doctests.py")),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    passed = re.search(r"(\d+) passed", found.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 12  # two cases through five tests, documentation, export, doctest
    assert "failed" not in found.stdout


@pytest.fixture(scope="module")
def softsign() -> Any:
    """The op of a file outside the package."""
    import types

    module = types.ModuleType("my_ops")
    exec(compile(_blocks()[0], "my_ops.py", "exec"), module.__dict__)
    return module.__dict__["softsign"]


def test_an_op_of_ones_own_has_gradients_of_every_order(softsign: Any) -> None:
    op = next(op for op in registered_ops() if op.name == "softsign")
    for number, case in enumerate(op.cases):
        trial = Trial(op, case, number)
        assert pullback(trial).first_order_error() < 1e-6
        assert pullback(trial).second_order_error() < 1e-6
        arrays = trial.arrays("float32")
        for a, b in zip(run_eagerly(op, arrays, case.attrs), run_traced(op, arrays, case.attrs), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_an_op_of_ones_own_trains(softsign: Any) -> None:
    class Softsign(cr.layers.Layer):
        def call(self, x: cr.Tensor) -> Any:
            return softsign(x)

    model = cr.Sequential([cr.Input((3,)), cr.layers.Dense(4), Softsign(), cr.layers.Dense(1)])
    model.compile(cr.optimizers.Adam(0.05), "mse")
    x = np.random.Generator(np.random.PCG64(0)).normal(size=(60, 3))
    history = model.fit(x, np.sign(x[:, 0]), epochs=8, verbose=0)
    assert history.history["loss"][-1] < 0.6 * history.history["loss"][0]


def test_the_module_spec_of_the_example_is_valid_python() -> None:
    for block in _blocks():
        compile(block, "CONTRIBUTING.md", "exec")
    assert importlib.util.find_spec("chainrule.ops.softsign") is None
