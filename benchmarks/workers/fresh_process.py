"""One fresh process: import a framework, load the data, train; prints times and peak memory as one line of JSON.

Run as ``python -m benchmarks.workers.fresh_process MODULE VARIANT SETTING``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.protocol import Job, Setting, lacking, memory_now
from benchmarks.workers import common


def main(module_name: str, variant: str, setting: Setting) -> dict[str, Any]:
    """Times in seconds and memory in bytes, or why this machine cannot prepare the variant.

    The data is loaded once before anything is measured, so that reading it and the modules for it count as neither;
    the job's own copy then counts as the framework's.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: setting.threads])
    if importlib.util.find_spec("llvmlite"):
        importlib.import_module("llvmlite.binding")  # its import is not counted
    start = time.perf_counter()
    module = importlib.import_module(module_name)
    imported = time.perf_counter() - start
    data = common.load(setting)
    vars(common)["load"] = lambda _: data
    _forget_peak()
    before = memory_now()["resident"]
    kind: type[Job] = module.JOB
    start = time.perf_counter()
    try:
        job = kind(setting, variant)
        job.first_steps(1)
    except kind.unavailable() as error:
        return {"unavailable": lacking(error)}
    first = time.perf_counter() - start
    start = time.perf_counter()
    job.first_steps(1)
    second = time.perf_counter() - start
    job.run()
    job.run()
    peak = memory_now()["peak"]
    loaded = sum(array.nbytes for array in data)
    return {
        "import_seconds": imported,
        "first_step_seconds": first,
        "second_step_seconds": second,
        "above_data_bytes": peak - before,
        "process_bytes": peak - loaded,
        "data_bytes": loaded,
    }


def _forget_peak() -> None:
    """Let the highest resident size start again from now, where the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not come between
    print(json.dumps(main(sys.argv[1], sys.argv[2], Setting(**json.loads(sys.argv[3])))), file=answers, flush=True)
