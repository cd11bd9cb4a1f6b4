"""The native engine: a graph compiled once for its largest batch, run on any batch up to that."""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import numpy as np

from chainrule.engines.checks import (
    Stop,
    batch_of,
    checked_data,
    checked_input,
    checked_inputs,
    checked_order,
    checked_per_step,
)
from chainrule.engines.native import threads as pool
from chainrule.engines.native.cache import cache_key, open_cache
from chainrule.engines.native.call import CallBlock, Driver
from chainrule.engines.native.driver import driver_symbols
from chainrule.engines.native.jit import Library, compile_objects, emit_assembly, host_target
from chainrule.engines.native.platform import host
from chainrule.engines.native.program import Place, Program
from chainrule.errors import EngineError, ShapeError
from chainrule.graph.canonical import canonical_text, package_fingerprint
from chainrule.graph.dims import Dim, bind_shape
from chainrule.graph.graph import Graph
from chainrule.graph.op import Array
from chainrule.graph.tensor import frozen
from chainrule.graph.variable import cache_aligned
from chainrule.graph.verify import verify
from chainrule.plan.dump import dump, dumping
from chainrule.plan.gathering import ORDER, source_of
from chainrule.plan.options import Options

__all__ = ["Executable", "KernelTime"]


@dataclass(frozen=True)
class KernelTime:
    """What one kernel took, summed over the steps and shared by the threads.

    Attributes:
        kernel: its name in the plan.
        where: the layers and ops that it computes.
        seconds: from its stage's beginning to its end.
    """

    kernel: str
    where: str
    seconds: float


class Compiled:
    """Code for one graph and one planned batch size, with the memory that it runs in."""

    def __init__(self, program: Program, objects: Sequence[bytes]) -> None:
        self.program = program
        library = Library(objects, driver_symbols(program.symbol, checked=program.checked))
        self.driver = Driver(
            library,
            program.symbol,
            program.stages,
            len(program.table),
            program.scratch,
            profile=program.profile,
            checked=program.checked,
        )
        self.arena = cache_aligned(np.empty(program.arena, np.uint8))
        self.constants = [cache_aligned(array) for array in program.arrays()]
        self.block = CallBlock(self.driver)
        for number, place in enumerate(program.table):
            if place.kind == "arena":
                self.block.table[number] = self.arena.ctypes.data + place.offset
            elif place.kind == "constant":
                self.block.table[number] = self.constants[place.offset].ctypes.data
        self.inputs = [place for place in program.table if place.kind == "input"]
        self._state: Mapping[str, Array] | None = None
        self.states = [(number, place.key) for number, place in enumerate(program.table) if place.kind == "state"]

    def bind_state(self, state: Mapping[str, Array]) -> None:
        """Let the table point to the variables' memory, which must stay alive until it points elsewhere."""
        if state is self._state:
            return
        self._state = None  # an interrupt may leave half of the table
        for number, key in self.states:
            self.block.table[number] = state[key].ctypes.data
        self._state = state

    def run(self, records: Array, threads: int | None, stop: Stop | None = None) -> int:
        """Run one step for each record; gives how many were run."""
        self.block.set_records(records)
        done = pool.run(self.driver.entry, self.block, threads, stop)
        if self.program.checked:
            self._check()
        return done

    def records(self, batches: Array, addresses: Mapping[str, Any]) -> Array:
        """Records of steps: each one's batch size, and each input's address."""
        records = np.zeros((len(batches), self.program.record // 8), np.int64)
        records[:, 0] = batches
        for place in self.inputs:
            records[:, place.offset // 8] = addresses[place.key]
        return records

    def _check(self) -> None:
        stray = self.driver.stray()
        if stray is not None:
            site, index, size = stray
            raise EngineError(f"{self.program.sites[site - 1]}: element {index} of {size}")

    def output(self, number: int, shape: Sequence[int], dtype: Any) -> Array:
        """A copy of an output."""
        place: Place = self.program.table[self.program.outputs[number]]
        assert place.kind in ("arena", "state")
        address = int(self.block.table[self.program.outputs[number]])
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if not size:
            return np.empty(shape, dtype)
        content = (ctypes.c_uint8 * size).from_address(address)
        return np.frombuffer(content, dtype).reshape(shape).copy()


def compiled(
    graph: Graph, batch: int, options: Options, gathered: Sequence[str], *, checked: bool, profile: bool
) -> Compiled:
    """Compile a graph, or take it from the cache; what is to be dumped is always compiled."""
    target = host_target()
    cache = None if dumping() else open_cache()
    key = ""
    canonical = None if cache is None else canonical_text(graph)
    if cache is not None and canonical is not None:
        settings = f"{batch} {options} {tuple(gathered)} {checked} {profile} {target.lanes32}"
        key = cache_key(f"{package_fingerprint()}\n{settings}\n{canonical}", target)
        entry = cache.load(key)
        if entry is not None:
            return Compiled(Program.from_json(entry.plan), entry.objects)
    # Planner and emitters are imported only where something is compiled: what comes from the cache starts sooner.
    from chainrule.engines.native.contractions import Generator
    from chainrule.engines.native.divide import divided
    from chainrule.engines.native.emit import emit_plan
    from chainrule.plan.build import build_plan

    generator = Generator(target.lanes32)
    plan = build_plan(graph, generator, batch, options, gathered)
    text, program = emit_plan(plan, generator, target, host(), checked=checked, profile=profile)
    program = replace(program, plan=hashlib.sha256(str(plan).encode()).hexdigest())
    dump("ir", lambda: text)
    dump("assembly", lambda: emit_assembly(text, target))
    objects = compile_objects(divided(text), target, threads=pool.get_threads())
    if cache is not None and key:
        cache.store(key, program.to_json(), objects)
    return Compiled(program, objects)


class Executable:
    """A graph ready to run natively; the same interface as the reference engine's.

    Args:
        graph: a traced graph.
        batch: the batch size to plan for at once; by default the first one met, planned anew when it grows.
        at_least: the smallest batch size to plan for.  The order of sums depends on the planned size, so who chooses it
            gets the same bits whatever came before.
        gathered: names of inputs that are batches of a data set; `run_steps` takes their rows by number.
        threads: how many threads take part; by default `threads.get_threads()`.
        options: planner passes to leave out.
        checked: bounds-check every load and store and name the op that strays.
        profile: take the time of every kernel.

    Raises:
        GraphError: the graph breaks a law.
        EngineError: an op has a NumPy rule only.

    >>> import chainrule as cr
    >>> graph = cr.trace(lambda x: cr.ops.relu(x) * 2, cr.input_spec((None, 2)), name="f")
    >>> Executable(graph)(np.array([[-1.0, 3.0]], np.float32)).tolist()
    [[0.0, 6.0]]
    """

    def __init__(
        self,
        graph: Graph,
        *,
        batch: int | None = None,
        at_least: int = 1,
        gathered: Sequence[str] = (),
        threads: int | None = None,
        options: Options | None = None,
        checked: bool = False,
        profile: bool = False,
    ) -> None:
        verify(graph, after="loading")
        self.graph = graph
        self.threads = threads
        self._gathered = tuple(gathered)
        self._row_specs = {name: graph.inputs[name].spec for name in gathered}
        self._step_specs = {name: item.spec for name, item in graph.inputs.items() if name not in self._row_specs}
        # A kernel has a time of its own only if it is alone in its stage.
        self._options = replace(options or Options(), stages=not profile and (options or Options()).stages)
        self._checked, self._profile = checked, profile
        self._compiled: Compiled | None = None
        self._variables: Mapping[str, Array] | None = None
        self._changing = [entry.variable for entry in graph.state if entry.changes]
        self._at_least = at_least
        self._frame: FrameType | None = None
        self._lock = threading.RLock()
        _alive.add(self)
        if batch is not None:
            self._ready(batch)

    def __call__(self, *inputs: Any) -> Any:
        """Run once; state is read from the variables before and written to them after."""
        with self._running():
            arrays, batch = self._load(inputs)
            ready = self._ready(batch)
            ready.bind_state(self._memory())
            self._state_changed()  # here too, since an interrupt may keep the other one from all variables
            try:
                self._step(ready, arrays, batch)
            finally:
                self._state_changed()
            return self.graph.structure(self._outputs(ready, batch))

    def run(self, inputs: Sequence[Any], state: Mapping[str, Array]) -> tuple[Any, dict[str, Array]]:
        """Run once on explicit state: every variable's value by name; gives the results and the new state."""
        with self._running():
            arrays, batch = self._load(inputs)
            ready = self._ready(batch)
            own = {
                entry.name: cache_aligned(checked_input(entry.name, entry.before.spec, state[entry.name]))
                for entry in self.graph.state
            }
            ready.bind_state(own)
            self._step(ready, arrays, batch)
            return self.graph.structure(self._outputs(ready, batch)), {k: frozen(v) for k, v in own.items()}

    def run_steps(
        self, data: Mapping[str, Array], order: Array, batch_size: int, scalars: Mapping[str, Array], stop: Stop
    ) -> int:
        """Run many steps in one call: step s takes the rows ``order[s * batch_size : (s + 1) * batch_size]``.

        Args:
            data: the data set of each gathered input, rows along the first axis; copied where it is not in row-major
                order.
            order: row numbers.
            batch_size: rows of a step; the last one may have fewer.
            scalars: the other inputs: one value for all steps, or one for each along a further first axis.
            stop: told how to end the call early; see `Stop`.

        Returns:
            How many steps were run; state is written to the variables, outputs are not kept.

        Raises:
            EngineError, ShapeError, DTypeError, DataError: naming an input, before the first step.
        """
        order = checked_order(order)
        if batch_size < 1:
            raise ShapeError(f"the steps of {self.graph.name} were to take {batch_size} rows each; expected 1 or more")
        steps = -(-len(order) // batch_size)
        if not steps:
            return 0
        sources = checked_data(self._row_specs, data, order)
        held = {name: checked_per_step(name, spec, scalars, steps) for name, spec in self._step_specs.items()}
        numbers = np.arange(steps, dtype=np.int64)
        starts = numbers * batch_size
        batches = np.minimum(batch_size, len(order) - starts)
        addresses: dict[str, Any] = {ORDER: _address(order) + starts * order.itemsize}
        addresses |= {source_of(name): _address(array) for name, array in sources.items()}
        for name, (array, distance) in held.items():
            addresses[name] = _address(array) + numbers * distance if distance else _address(array)
        with self._running():
            ready = self._ready(min(batch_size, len(order)))
            ready.bind_state(self._memory())
            self._state_changed()
            try:
                return ready.run(ready.records(batches, addresses), self.threads, stop)
            finally:
                self._state_changed()

    def plan_text(self) -> str:
        """The plan for the smallest batch size that is planned for, in words; it is made anew for this."""
        from chainrule.engines.native.contractions import Generator
        from chainrule.plan.build import build_plan

        generator = Generator(host_target().lanes32)
        return str(build_plan(self.graph, generator, max(self._at_least, 1), self._options, self._gathered))

    def plan_digest(self) -> str:
        """SHA-256 of the plan in words, which may be that of a larger batch size if one was met."""
        return self._ready(max(self._at_least, 1)).program.plan

    def times(self) -> list[KernelTime]:
        """Where the time of the steps so far went, longest first; empty before the first step.

        Raises:
            EngineError: the executable was not made with ``profile=True``.
        """
        if not self._profile:
            raise EngineError("this executable takes no times; make it with profile=True")
        if self._compiled is None:
            return []
        found = self._compiled.block.times()
        where = self._compiled.program.where
        rows = [KernelTime(t.name, place, t.seconds) for t, place in zip(found, where, strict=True)]
        return sorted(rows, key=lambda row: -row.seconds)

    def forget_times(self) -> None:
        """Begin taking times anew."""
        if self._compiled is not None:
            self._compiled.block.clear_times()

    def _step(self, ready: Compiled, arrays: Mapping[str, Array], batch: int) -> None:
        order = np.arange(batch, dtype=np.int64)
        addresses = {source_of(name) if name in self._gathered else name: a.ctypes.data for name, a in arrays.items()}
        addresses[ORDER] = order.ctypes.data
        ready.run(ready.records(np.array([batch]), addresses), self.threads)

    def _memory(self) -> Mapping[str, Array]:
        """The variables' memory, which stays where it is."""
        if self._variables is None:
            self._variables = {entry.name: entry.variable.memory() for entry in self.graph.state}
        return self._variables

    @contextmanager
    def _running(self) -> Iterator[None]:
        """One run at a time.

        Raises:
            EngineError: a run of this very executable is further out on the stack, as when a signal handler came in its
                middle; it would find other inputs and outputs than its own.
        """
        with self._lock:
            frame: FrameType | None = sys._getframe()
            while self._frame is not None and frame is not None:
                if frame is self._frame:
                    raise EngineError(
                        f"{self.graph.name} is running already in this thread; expected one run at a time"
                    )
                frame = frame.f_back
            self._frame = sys._getframe(2)  # who runs it; one that was interrupted is no longer on the stack
            try:
                yield
            finally:
                self._frame = None

    def _state_changed(self) -> None:
        for variable in self._changing:
            variable.memory_changed()

    def renew(self) -> None:
        """Go on in a forked child: no other thread is left to let go of what it held, or to say what it changed."""
        self._lock = threading.RLock()
        if self._compiled is not None:
            self._compiled.block.release()
        if self._variables is not None:
            self._state_changed()

    def _ready(self, batch: int) -> Compiled:
        if self._compiled is None or self._compiled.program.batch < batch:
            self._compiled = compiled(
                self.graph,
                max(batch, self._at_least, 1),
                self._options,
                self._gathered,
                checked=self._checked,
                profile=self._profile,
            )
        return self._compiled

    def _load(self, inputs: Sequence[Any]) -> tuple[dict[str, Array], int]:
        arrays = {name: np.asarray(a, order="C") for name, a in checked_inputs(self.graph, inputs).items()}
        batch = batch_of(self.graph, arrays)
        self._refuse_negative_sizes(batch)
        return arrays, batch

    def _refuse_negative_sizes(self, batch: int) -> None:
        for node in self.graph.nodes:
            for spec in node.specs:
                if any(isinstance(size, Dim) and size.offset < 0 for size in spec.shape):
                    bound = bind_shape(spec.shape, batch)
                    if min(bound) < 0:
                        raise ShapeError(f"{node.where}: a batch of {batch} is too small; it would make {bound}")

    def _outputs(self, ready: Compiled, batch: int) -> list[Array]:
        return [
            frozen(ready.output(number, bind_shape(item.shape, batch), item.dtype))
            for number, item in enumerate(self.graph.outputs.values())
        ]


def _address(array: Array) -> int:
    """Where an array lies; quicker than `ctypes.data`."""
    place: int = array.__array_interface__["data"][0]
    return place


def _renew() -> None:
    """Begin anew in a forked child."""
    for run in tuple(_alive):
        run.renew()


_alive: weakref.WeakSet[Executable] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
