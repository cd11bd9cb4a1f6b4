"""The benchmarks' command line: ``make bench``, ``make bench ARGS="steps --quick"``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import accuracy, fresh, overhead, pictures, steps
from benchmarks.networks import NETWORKS
from benchmarks.peak import measure_peak
from benchmarks.peers import Peer, choose
from benchmarks.protocol import Setting
from benchmarks.report import machine, markdown_table

COMMANDS = {
    "all": "peak, steps, memory, startup, overhead; accuracy too where --data is given",
    "peak": "FMA peak, clock and memory bandwidth with all threads busy",
    "steps": "milliseconds for a training step, frameworks in turns",
    "memory": "peak memory of training in a fresh process",
    "startup": "seconds from the imports to the first step in a fresh process",
    "overhead": "what fit itself costs a step",
    "accuracy": "MNIST, five epochs, five seeds; needs --data",
    "pictures": "training from picture files beside training from arrays; needs --data with a folder for each class",
}
LARGEST = "conv32-conv64-dense64"
"""The network of start-up, memory and accuracy."""

FRESH_STEPS = 16


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    text = "\n".join(f"  {name:10}{meaning}" for name, meaning in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="make bench", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=COMMANDS, default="all", metavar="COMMAND")
    parser.add_argument("--quick", action="store_true", help="fewer variants and rounds: a few minutes")
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="rows whose name contains PART")
    parser.add_argument("--nets", nargs="+", choices=NETWORKS, metavar="NAME", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--batches", nargs="+", type=_positive, default=[32, 128], metavar="N")
    parser.add_argument("--threads", nargs="+", type=_positive, metavar="N", help="default: 1 and 2, as far as present")
    parser.add_argument("--processes", type=_positive, metavar="N", help="sets of fresh processes, one after another")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="turns of each variant in a process")
    parser.add_argument("--steps", type=_positive, default=40, metavar="N", help="steps in a turn")
    parser.add_argument("--seeds", type=_positive, default=5, metavar="N", help="trainings for accuracy")
    parser.add_argument("--rates", nargs="+", choices=accuracy.RATES, default=accuracy.RATES, metavar="NAME")
    parser.add_argument("--epochs", type=_positive, default=5, metavar="N", help="epochs for accuracy")
    parser.add_argument("--data", default="", metavar="FOLDER", help="MNIST's idx files; else pictures are made up")
    parser.add_argument("--workers", type=_positive, default=2, metavar="N", help="threads that read pictures")
    parser.add_argument("--size", type=_positive, metavar="N", help="sides that pictures are brought to")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for chainrule's processes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    _complete(parser, options)
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _complete(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Defaults that depend on other options, and what does not fit together."""
    present = len(os.sched_getaffinity(0))
    options.processes = options.processes or (1 if options.quick else 2)
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.threads = options.threads or [count for count in (1, 2) if count <= present]
    if max(options.threads) > present:
        parser.error(f"--threads {max(options.threads)}: this process may use {present} processors")
    if any("=" not in pair for pair in options.env):
        parser.error("--env takes NAME=VALUE")
    options.env = dict(pair.split("=", 1) for pair in options.env)
    if options.command == "accuracy" and not options.data:
        parser.error("accuracy needs --data FOLDER, a folder with MNIST's four idx files")
    if options.command == "pictures" and not options.data:
        parser.error("pictures needs --data FOLDER, a folder with a folder of pictures for each class")
    options.data = str(Path(options.data).resolve()) if options.data else ""
    options.peers = choose(options.quick, options.only)
    if not options.peers:
        parser.error(f"no row contains any of {', '.join(options.only)}")


# --- The commands: each one returns its readings and their Markdown --------------------------------


def run_peak(options: argparse.Namespace) -> tuple[Any, str]:
    found = [measure_peak(threads) for threads in options.threads]
    rows = [
        [
            str(one.threads),
            f"{one.gflops:.0f}",
            f"{one.clock_ghz:.2f}",
            f"{one.flops_per_cycle:.1f}" + ("" if one.is_plausible() else " (disturbed)"),
            f"{one.read_gb:.1f}",
            f"{one.triad_gb:.1f}",
        ]
        for one in found
    ]
    header = ("threads", "FMA, GFLOP/s", "clock, GHz", "FLOPs a cycle and thread", "read, GB/s", "triad, GB/s")
    return [asdict(one) for one in found], "## What the machine can do\n\n" + markdown_table(header, rows)


def run_steps(options: argparse.Namespace) -> tuple[Any, str]:
    plan = steps.Plan(
        peers=tuple(_with_environment(options)),
        networks=tuple(options.nets or NETWORKS),
        batches=tuple(options.batches),
        threads=tuple(options.threads),
        processes=options.processes,
        rounds=options.rounds,
        steps=options.steps,
        data=options.data,
        log=options.log,
    )
    groups = steps.measure(plan)
    return [group.to_json() for group in groups], steps.tables(groups)


def run_memory(options: argparse.Namespace) -> tuple[Any, str]:
    readings = _fresh(options)
    return [one.to_json() for one in readings], fresh.memory_table(readings)


def run_startup(options: argparse.Namespace) -> tuple[Any, str]:
    readings = _fresh(options)
    return [one.to_json() for one in readings], fresh.startup_table(readings)


def run_fresh(options: argparse.Namespace) -> tuple[Any, str]:
    """Memory and start-up from the same processes."""
    readings = _fresh(options)
    return [one.to_json() for one in readings], fresh.memory_table(readings) + "\n\n" + fresh.startup_table(readings)


def _fresh(options: argparse.Namespace) -> list[fresh.Reading]:
    network = (options.nets or [LARGEST])[-1]
    setting = Setting(network, options.batches[-1], options.threads[-1], FRESH_STEPS, options.data)
    return fresh.measure(_with_environment(options), setting, options.rounds, options.log)


def run_overhead(options: argparse.Namespace) -> tuple[Any, str]:
    found = overhead.measure(
        options.nets or list(NETWORKS), options.batches[0], options.threads[-1], options.rounds, options.env
    )
    samples = 6000 if options.quick else 60000
    loop = overhead.measure_loop(options.threads[-1], options.rounds, samples, options.env)
    return {"steps": found, "loop": loop}, f"{overhead.table(found)}\n\n{overhead.loop_table(loop)}"


def run_accuracy(options: argparse.Namespace) -> tuple[Any, str]:
    network, batch = (options.nets or [LARGEST])[-1], options.batches[-1]
    seeds, threads = range(options.seeds), options.threads[-1]
    found = accuracy.measure(network, options.data, seeds, options.epochs, batch, threads, options.rates)
    return found, accuracy.table(found, network, options.epochs, batch)


def run_pictures(options: argparse.Namespace) -> tuple[Any, str]:
    size = (options.size, options.size) if options.size else None
    jobs = [
        pictures.Job(kind, options.data, options.batches[-1], options.steps, options.workers, size)
        for kind in pictures.KINDS
    ]
    found = pictures.measure(jobs, options.threads[-1], options.rounds, options.env)
    return found, pictures.table(found)


def _with_environment(options: argparse.Namespace) -> list[Peer]:
    """The chosen peers; chainrule's processes also get what ``--env`` names."""
    return [peer.with_environment(options.env) if peer.is_ours() else peer for peer in options.peers]


RUN = {
    "peak": run_peak,
    "steps": run_steps,
    "memory": run_memory,
    "startup": run_startup,
    "fresh": run_fresh,
    "overhead": run_overhead,
    "accuracy": run_accuracy,
    "pictures": run_pictures,
}


def main(arguments: list[str]) -> int:
    """Measure, print the tables, and leave them in the folder of results with every single reading."""
    options = parse(arguments)
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    options.log = options.out / "workers.log"
    options.log.write_bytes(b"")
    every = ["peak", "steps", "fresh", "overhead", *(["accuracy"] if options.data else [])]
    about = machine()
    results: dict[str, Any] = {"machine": about}
    texts = [f"# Benchmarks\n\n{_described(about)}"]
    for name in every if options.command == "all" else [options.command]:
        results[name], text = RUN[name](options)
        texts.append(text)
        print(f"\n{text}\n", flush=True)
        stem = options.out / options.command
        stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        stem.with_suffix(".md").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    print(f"readings and tables: {stem}.json, {stem}.md")
    return 0


def _described(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    return (
        f"{about['processor']}, {about['processors']} processors, {about['memory_gib']} GiB, {about['system']}, "
        f"Python {about['python']}; {versions}; C++ compiler: {about['compiler']}; "
        f"load at the start {about['load']:.1f}.\n\n"
        'Times are medians with quartiles; "times as long" is the ratio of medians or the median of the rounds\' '
        "ratios to chainrule, whichever is smaller; the share of peak counts the FLOPs of the dense direct algorithm."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
