"""The benchmarks' own logic; no framework but chainrule is needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command_line
from benchmarks import fresh
from benchmarks.networks import NETWORKS, first_weights, images
from benchmarks.peak import Peak, measure_clock
from benchmarks.peers import OURS, Peer, choose, environment_of, peers
from benchmarks.protocol import Setting, Unavailable, Worker, WorkerError, workers
from benchmarks.report import less_favourable, markdown_table, quartiles
from benchmarks.steps import Group, Plan, Row, contenders, disagreement, measure, tables

ROOT = Path(__file__).resolve().parents[2]
SMALL = Setting("conv32-conv64-dense64", batch=8, threads=1, steps=4)
ECHO = "tests.benchmarks.echo_worker"


# --- Networks and data ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "parameters"), [("conv32-dense128", 693_962), ("conv32-conv64-dense64", 121_930)])
def test_networks_are_those_of_the_library(name: str, parameters: int) -> None:
    import chainrule as cr

    assert NETWORKS[name].parameters() == parameters
    library = cr.networks.NETWORKS[name]((28, 28, 1), 10)
    assert [tuple(weight.shape) for weight in library.weights] == NETWORKS[name].weight_shapes()


def test_flops_of_a_step_written_out() -> None:
    first = 26 * 26 * 32 * 9
    second = 11 * 11 * 64 * 9 * 32
    dense = 1600 * 64 + 64 * 10
    assert NETWORKS["conv32-conv64-dense64"].step_flops() == 2 * (2 * first + 3 * second + 3 * dense)


def test_first_weights_are_the_same_each_time_and_glorot() -> None:
    network = NETWORKS["conv32-dense128"]
    first, again = first_weights(network), first_weights(network)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    limit = np.sqrt(6 / (5408 + 128))
    assert 0.99 * limit < np.abs(first[2]).max() <= limit
    assert not first[3].any()


def test_pictures_are_mostly_background() -> None:
    x, y = images(64)
    assert x.shape == (64, 28, 28, 1)
    assert x.dtype == np.float32
    assert x.min() == 0 < x.max() <= 1
    assert 0.6 < (x == 0).mean() < 0.9
    assert set(y.tolist()) <= set(range(10))


# --- Reports -------------------------------------------------------------------------------------


def test_quartiles_interpolate() -> None:
    assert quartiles([4.0, 1.0, 2.0, 3.0]) == (1.75, 2.5, 3.25)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)


def test_the_less_favourable_ratio_is_the_smaller_one() -> None:
    ours, peer = [1.0, 1.0, 4.0], [2.0, 8.0, 8.0]
    assert less_favourable(peer, ours) == 2.0  # of rounds: 2, 8, 2; of medians: 8
    assert less_favourable([2.0, 6.0, 9.0], [1.0, 2.0, 1.0]) == 3.0  # of rounds: 2, 3, 9; of medians: 6
    assert less_favourable([4.0, 4.0, 1.0], [2.0, 1.0, 0.1]) == 4.0  # of rounds: 2, 4, 10; of medians: 4
    assert less_favourable([2.0, 3.0, 9.0], [0.5, 2.0, 3.0]) == 1.5  # of rounds: 4, 1.5, 3; of medians: 1.5


def test_tables_have_a_rule_under_the_header() -> None:
    assert markdown_table(("a", "b"), [["x", "1"]]) == "| a | b |\n|---|---:|\n| x | 1 |"


def group_of(**milliseconds: list[float]) -> Group:
    """A group with rows of these readings that all train alike."""
    rows = {name: Row(name, values, losses=[2.3, 2.0], last_loss=0.1) for name, values in milliseconds.items()}
    return Group(SMALL, rows, gflops=[100.0], clock_ghz=[3.1])


def test_the_summary_names_the_fastest_peer() -> None:
    text = tables([group_of(chainrule=[1.0, 1.0], slow=[9.0, 9.0], quick=[3.0, 3.0])])
    row = next(line for line in text.splitlines() if line.startswith("| conv32-conv64-dense64"))
    assert [cell.strip() for cell in row.split("|")][4:8] == ["1.00 (1.00-1.00)", "quick", "3.00 (3.00-3.00)", "3.00"]


def test_the_summary_marks_what_cannot_be_trusted() -> None:
    group = group_of(chainrule=[1.0], quick=[3.0])
    assert "| 3.00 |" in tables([group])
    assert "| 3.00† |" not in tables([group, group_of(chainrule=[1.0], quick=[4.0])])
    group.clock_ghz = [1.6, 1.6]
    assert "| 3.00† |" in tables([group, group_of(chainrule=[1.0], quick=[4.0])])
    group.clock_ghz = [3.1, 1.6]
    assert "| 3.00† |" in tables([group])
    group.rows["chainrule"].losses = [0.1, 2.0]
    assert "| 3.00*† |" in tables([group])


def test_a_row_that_failed_says_so_and_is_not_ranked() -> None:
    group = group_of(chainrule=[1.0], quick=[3.0])
    group.rows["quick"].error = "RuntimeError: no compiler"
    text = tables([group])
    assert "quick: not measured: RuntimeError: no compiler" in text
    assert "| quick" not in text


def test_the_share_of_peak_counts_direct_flops() -> None:
    flops = NETWORKS[SMALL.network].step_flops() * SMALL.batch
    text = tables([group_of(chainrule=[flops / 1e6 / 50])])  # 50 GFLOP/s of 100
    assert "50% |" in text
    quiet = group_of(chainrule=[1.0])
    quiet.gflops = [200.0]
    assert "25% |" in tables([group_of(chainrule=[flops / 1e6 / 50]), quiet])


def test_trainings_that_differ_are_named() -> None:
    group = group_of(chainrule=[1.0], other=[1.0])
    assert disagreement(group) == []
    group.rows["other"].losses = [2.3005, 2.0]
    assert "with the first weights" in disagreement(group)[0]
    group.rows["other"].losses = [2.3, 2.1]
    assert "after the first steps" in disagreement(group)[0]
    group.rows["other"].losses = [2.3, 2.0]
    group.rows["other"].last_loss = 2.4
    assert disagreement(group) == ["other: the loss did not fall, 2.3000 to 2.4000"]
    group.rows["other"].last_loss = float("nan")
    assert len(disagreement(group)) == 1


# --- Peers and workers ---------------------------------------------------------------------------


@pytest.mark.parametrize("quick", [True, False])
def test_rows_have_names_of_their_own(quick: bool) -> None:
    labels = [peer.label(variant) for peer in peers(quick) for variant in peer.variants]
    assert len(set(labels)) == len(labels)
    assert OURS in labels


def test_only_picks_rows() -> None:
    picked = choose(False, ["eager fused", OURS])
    labels = [peer.label(variant) for peer in picked for variant in peer.variants]
    assert labels == ["chainrule", "torch eager fused", "torch-keep eager fused"]


def test_threads_are_said_in_everybodys_words() -> None:
    one = environment_of(Peer("x", ECHO, ("",), {"KERAS_BACKEND": "jax"}), SMALL)
    assert one["CHAINRULE_THREADS"] == one["OMP_NUM_THREADS"] == "1"
    assert one["KERAS_BACKEND"] == "jax"


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Worker]:
    with workers() as alive:
        alive.append(Worker(ECHO, SMALL, {}, tmp_path / "log"))
        yield alive[0]


@pytest.mark.slow
def test_a_worker_answers_although_libraries_print(echo: Worker) -> None:
    assert echo.ask("prepare", "good")["losses"] == [2.0, 1.5]
    assert echo.ask("run", "good") == {"seconds": pytest.approx(0.004)}
    assert echo.ask("loss", "good") == {"loss": 0.5}
    assert echo.ask("memory")["peak"] >= 1 << 20
    assert echo.processor_seconds() >= 0


@pytest.mark.slow
def test_a_worker_outlives_a_variant_that_the_machine_lacks_something_for(echo: Worker) -> None:
    with pytest.raises(Unavailable, match=r"^MissingCompiler: no compiler$"):
        echo.ask("prepare", "impossible")
    assert echo.ask("prepare", "good")


@pytest.mark.slow
def test_a_worker_that_dies_is_named(echo: Worker) -> None:
    echo.ask("prepare", "dies")
    with pytest.raises(WorkerError, match=f"{ECHO} ended with status 3 when asked to run 'dies'"):
        echo.ask("run", "dies")


@pytest.mark.slow
def test_any_other_failure_ends_the_worker_with_its_traceback(echo: Worker) -> None:
    with pytest.raises(WorkerError, match=r"status 1 .*\n(.*\n)*Traceback(.*\n)*RuntimeError: a mistake in its making"):
        echo.ask("prepare", "wrong")


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with workers() as alive:
        alive.append(Worker("tests.benchmarks.no_such_worker", SMALL, {}, tmp_path / "log"))
        with pytest.raises(WorkerError, match=r"status 1 .*\n.*No module named tests.benchmarks.no_such_worker"):
            alive[0].ask("prepare")


def plan_of(*peers_here: Peer, log: Path) -> Plan:
    """Two processes of three rounds of four steps each."""
    return Plan(peers_here, (SMALL.network,), (8,), (1,), 2, 3, 4, "", log)


@pytest.fixture
def no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is not measured."""
    for name in ("measure_multiply_adds", "measure_clock"):
        monkeypatch.setattr(f"benchmarks.steps.{name}", lambda threads: 1.0)


@pytest.mark.usefixtures("no_peak")
@pytest.mark.slow
def test_what_the_machine_lacks_stops_no_other_row(tmp_path: Path) -> None:
    (group,) = measure(plan_of(Peer("echo", ECHO, ("impossible", "good")), log=tmp_path / "log"))
    assert group.rows["echo impossible"].error == "MissingCompiler: no compiler"
    assert not group.rows["echo impossible"].milliseconds
    assert len(group.rows["echo good"].milliseconds) == 6
    assert "echo impossible: not measured: MissingCompiler: no compiler" in tables([group])
    assert "no compiler\nand a second line" in (tmp_path / "log").read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_peak")
@pytest.mark.parametrize(
    ("variant", "reason"),
    [
        ("wrong", "RuntimeError: a mistake in its making"),
        ("fails", "MissingCompiler: too late to lack one"),
        ("dies", "status 3"),
    ],
)
@pytest.mark.slow
def test_a_failing_run_ends_the_benchmark(variant: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=reason):
        measure(plan_of(Peer("echo", ECHO, ("good", variant)), log=tmp_path / "log"))


@pytest.mark.slow
def test_chainrules_own_failure_ends_the_benchmark_with_its_traceback(tmp_path: Path) -> None:
    arguments = ["steps", "--only", OURS, "--nets", SMALL.network, "--batches", "8", "--threads", "1", "--steps", "4"]
    rest = ["--processes", "1", "--rounds", "1", "--env", "CHAINRULE_ENGINE=none", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, *rest], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 1
    assert "WorkerError: benchmarks.workers.chainrule_worker ended with status 1" in done.stderr
    assert "ConfigError: " in done.stderr
    assert not list(tmp_path.glob("*.md"))


@pytest.mark.slow
def test_fresh_processes_tell_what_is_lacking_from_failures(tmp_path: Path) -> None:
    good, impossible = fresh.measure([Peer("echo", ECHO, ("good", "impossible"))], SMALL, 1, tmp_path / "log")[::2]
    assert good.values("data_bytes") == [4 * 8 * (28 * 28 * 4 + 8)]
    assert impossible.error == "MissingCompiler: no compiler"
    assert not impossible.found
    table = fresh.startup_table([impossible])
    assert "echo impossible, cache empty: not measured: MissingCompiler: no compiler" in table
    with pytest.raises(WorkerError, match=r"echo fails ended with status 1:\n(.*\n)*.*MissingCompiler: too late"):
        fresh.measure([Peer("echo", ECHO, ("fails",))], SMALL, 1, tmp_path / "log")


@pytest.mark.usefixtures("no_peak")
@pytest.mark.slow
def test_every_round_is_one_reading(tmp_path: Path) -> None:
    (group,) = measure(plan_of(Peer("echo", ECHO, ("good", "better")), log=tmp_path / "log"))
    assert group.rows["echo good"].milliseconds == pytest.approx([1.0] * 6)
    assert group.rows["echo better"].last_loss == 0.5
    assert json.loads(json.dumps(group.to_json()))["setting"]["batch"] == 8


def test_hopeless_variants_are_measured_once_only() -> None:
    group = Group(SMALL)
    times = {OURS: 1.0, "a quick": 2.0, "a slow": 3.1, "b near": 2.9}
    group.rows = {label: Row(label, [time] * 3) for label, time in times.items()}
    group.rows["a broken"] = Row("a broken", error="no compiler")
    everyone = [Peer(OURS, ECHO, ("",)), Peer("a", ECHO, ("quick", "slow", "broken")), Peer("b", ECHO, ("near",))]
    assert contenders(Group(SMALL), everyone) == everyone
    assert [peer.variants for peer in contenders(group, everyone)] == [("",), ("quick",), ("near",)]
    group.rows[OURS].milliseconds += [2.0] * 3  # a slower minute counts only for those that saw it
    group.rows["a quick"].milliseconds += [2.0] * 3
    group.gflops, group.clock_ghz = [1.0], [1.0]
    text = tables([group])
    assert "| a slow | 3.10 (3.10-3.10) | 3.10 |" in text
    assert "| a quick | 2.00 (2.00-2.00) | 1.33 |" in text


@pytest.mark.slow
def test_chainrule_trains_in_its_worker(tmp_path: Path) -> None:
    with workers() as alive:
        alive.append(
            Worker(
                "benchmarks.workers.chainrule_worker", SMALL, environment_of(peers(True)[0], SMALL), tmp_path / "log"
            )
        )
        losses = alive[0].ask("prepare")["losses"]
        assert alive[0].ask("run")["seconds"] > 0
        assert alive[0].ask("loss")["loss"] < losses[0]


# --- The machine ---------------------------------------------------------------------------------


def test_the_chain_takes_time() -> None:
    assert 0.1 < measure_clock(1, 0.002) < 20


@pytest.mark.parametrize(("gflops", "plausible"), [(200.0, True), (150.0, False)])
def test_peak_is_held_to_the_clock(gflops: float, plausible: bool) -> None:
    assert Peak(2, gflops, 3.125, 1.0, 1.0).is_plausible() is plausible


# --- The command line and the environment --------------------------------------------------------


def test_accuracy_asks_for_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.parse(["accuracy"])
    assert "--data FOLDER" in capsys.readouterr().err


def test_a_name_that_fits_no_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.parse(["steps", "--only", "caffe"])
    assert "no row contains any of caffe" in capsys.readouterr().err


def test_variables_reach_only_chainrule() -> None:
    options = command_line.parse(["steps", "--quick", "--env", "CHAINRULE_ENGINE=reference"])
    found = command_line._with_environment(options)
    assert [peer.name for peer in found if "CHAINRULE_ENGINE" in peer.environment] == [OURS]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {re.sub("[-_.]+", "-", package).lower(): version for package, version in pinned}


def test_both_environments_hold_the_same_versions() -> None:
    bench, dev = pins("bench.txt"), pins("dev.txt")
    assert bench["torch"] == "2.13.0"
    assert {name: bench[name] for name in bench.keys() & dev.keys()} == {
        name: dev[name] for name in bench.keys() & dev.keys()
    }
