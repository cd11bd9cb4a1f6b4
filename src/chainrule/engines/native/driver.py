"""The driver: the function that every thread enters to run the steps of a call together.

A step is a sequence of stages, a stage a number of units of work that may run in any order, and the next stage
begins when all of them are finished.  All threads meet in one *claim word* per call::

    claim = sequence number of the stage, counted over the steps (high half) | next unit (low half)

A thread claims a unit by compare-and-swap, so one that slept through a stage can never take a unit of a later one
for its own.  Whoever finishes the last unit of a stage *advances*: it is alone then, runs the stages of one unit at
once, and publishes the next large stage.  So a barrier counts finished units, not arrived threads; a thread that
never arrives holds nobody up, and one that comes late finds its place from the sequence number alone.

At the end of a step the advancing thread, and no other, decides whether there is another one and publishes that in
the claim word too: all threads agree on where to stop.

The *gate* lets worker threads in and out: the caller closes it, and returns when the last worker has left.  A
worker that comes after that, or with the number of an earlier call, touches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chainrule.engines.native.ir import Function, Module, Value
from chainrule.engines.native.platform import Platform
from chainrule.engines.native.types import BOOL, I64

__all__ = [
    "CLOSED",
    "IDLE_CLAIM",
    "LARGEST_SEQUENCE",
    "LINE",
    "Binding",
    "Field",
    "Stage",
    "UnitCount",
    "driver_symbols",
    "emit_driver",
    "rounded",
]


@dataclass(frozen=True, slots=True)
class UnitCount:
    """How many units of work a stage has: ``ceil(max(scale * n + offset, 0) / chunk)``, n the run-time batch size."""

    scale: int
    offset: int
    chunk: int

    def of(self, n: int) -> int:
        """The number of units for a batch size."""
        return -(-max(self.scale * n + self.offset, 0) // self.chunk)


@dataclass(frozen=True, slots=True)
class Stage:
    """Kernels that run one after another on each unit; all units are finished before the next stage begins.

    Attributes:
        kernels: symbols in the module, each ``void (ptr table, i64 n, i64 low, i64 high, ptr scratch)``.
        units: how many units there are; fewer than 2**32.
        name: what the profile calls the stage.
    """

    kernels: tuple[str, ...]
    units: UnitCount
    name: str


@dataclass(frozen=True, slots=True)
class Binding:
    """An entry of the table that changes from step to step.

    Attributes:
        entry: its number in the table.
        offset: bytes from the start of the step's record.
        indirect: whether the record holds a pointer there, instead of the data itself.
    """

    entry: int
    offset: int
    indirect: bool


class Field:
    """Where in the call block each field lies, in bytes; what threads write to has a cache line pair of its own."""

    TABLE = 0  # the table that each thread copies
    RECORDS = 8  # the first step's record
    RECORD_BYTES = 16
    FIRST = 24  # the first step of this entry
    LIMIT = 32  # one more than its last step
    THREADS = 40
    PRIVATE = 48  # the memory of thread 0
    PRIVATE_BYTES = 56  # and how far it is to that of thread 1
    GIVE_WAY = 64
    WAIT = 72
    WAKE = 80
    PAUSES = 88
    YIELDS = 96
    PROFILE = 104
    STOP = 128
    CLAIM = 256
    FINISHED = 384
    GATE = 512
    SLEEPERS = 640
    DONE = 768  # how many steps are complete
    STAMP = 776  # when the present stage began
    BEGAN = 784  # when thread 0 came
    ENDED = 792  # and when it left
    SIZE = 896


# The claim word's sequence numbers before the first stage and after the last one.
_IDLE = 2**32 - 2
_END = 2**32 - 1

LARGEST_SEQUENCE = _IDLE - 1
"""How many stages one entry into native code may run."""

IDLE_CLAIM = (_IDLE << 32) - 2**64
"""The claim word before the first stage, as an int64."""

_LOW_HALF = 2**32 - 1
_HIGH_HALF = _LOW_HALF << 32

# The gate: generation << 32 | closed << 31 | workers inside.
CLOSED = 1 << 31
"""The bit that closes the gate."""

_INSIDE = CLOSED - 1

LINE = 128
"""What two threads write to lies so many bytes apart: processors fetch pairs of cache lines."""


def driver_symbols(name: str, *, checked: bool = False) -> tuple[str, ...]:
    """The symbols that `emit_driver` defines for others, in the order that `Driver` takes them."""
    return (name, f"{name}.stray") if checked else (name,)


def emit_driver(
    module: Module,
    name: str,
    stages: Sequence[Stage],
    table_size: int,
    bindings: Sequence[Binding],
    target: Platform,
    *,
    profile: bool = False,
) -> None:
    """Emit ``i64 @name(ptr call, i64 thread, i64 generation)``, which every thread of a call enters.

    It returns the number of complete steps.  A checked module gets ``ptr @name.stray()`` too.

    Args:
        module: where the kernels are.
        name: the symbol.
        stages: at least one.
        table_size: number of pointers in the table.
        bindings: what of the table each step's record sets.  A record begins with the batch size, an i64.
        target: the platform that the code is for.
        profile: whether the time of each stage and kernel is taken.
    """
    assert stages, "a driver needs at least one stage"
    _Emitter(module, name, tuple(stages), table_size, tuple(bindings), target, profile).emit()


class _Emitter:
    """Writes the functions of one driver."""

    def __init__(
        self,
        module: Module,
        name: str,
        stages: tuple[Stage, ...],
        table_size: int,
        bindings: tuple[Binding, ...],
        target: Platform,
        profile: bool,
    ) -> None:
        self.module, self.name, self.stages, self.table_size = module, name, stages, table_size
        self.bindings, self.target, self.profile = bindings, target, profile

    def emit(self) -> None:
        """Write them all."""
        for number in range(len(self.stages)):
            self._stage(number)
        rows = [
            f"{{ ptr, i64, i64, i64 }} {{ ptr @{self.name}.stage{number}, i64 {stage.units.scale}, "
            f"i64 {stage.units.offset}, i64 {stage.units.chunk} }}"
            for number, stage in enumerate(self.stages)
        ]
        self.module.add_global(
            f"@{self.name}.stages = internal constant [{len(rows)} x {{ ptr, i64, i64, i64 }}] [{', '.join(rows)}]"
        )
        self._wait()
        self._publish()
        self._bind()
        self._work()
        self._entry()
        if self.module.checked:
            stray = Function(self.module, f"{self.name}.stray", [], result="ptr")
            stray.emit("ret ptr @chainrule_stray")

    # -- pieces ---------------------------------------------------------------------------------------------

    def _function(self, part: str, parameters: str, result: str = "void") -> Function:
        """A function of the driver; `parameters` such as ``"ptr call, i64 step"``."""
        pairs = [tuple(item.split()) for item in parameters.split(", ")]
        name = f"{self.name}.{part}" if part else self.name
        return Function(self.module, name, [(kind, label) for kind, label in pairs], result=result)

    def _stage(self, number: int) -> None:
        """One unit of a stage: its kernels in order."""
        f = self._function(f"stage{number}", "ptr table, i64 n, i64 unit, ptr scratch, ptr times")
        following = f.let(I64, "add i64 %unit, 1").text
        first = sum(len(stage.kernels) for stage in self.stages[:number])
        before = self.target.emit_clock(f) if self.profile else None
        for slot, kernel in enumerate(self.stages[number].kernels, first):
            f.call_void(kernel, f"ptr %table, i64 %n, i64 %unit, i64 {following}, ptr %scratch")
            if before is not None:
                before = self._add_time(f, "%times", str(slot), before)

    def _add_time(self, f: Function, times: str, slot: str, before: Value) -> Value:
        """Add the time since `before` to one sum of the profile; returns the time now."""
        now = self.target.emit_clock(f)
        place = _pointer(f, f"getelementptr i64, ptr {times}, i64 {slot}")
        spent = f.binary("sub", now, before)
        total = f.binary("add", f.let(I64, f"load i64, ptr {place}, align 8"), spent)
        f.emit(f"store {total}, ptr {place}, align 8")
        return now

    def _wait(self) -> None:
        """Wait until the masked word differs from `value`: pause, then give way, then sleep on its 32-bit `half`."""
        f = self._function("wait", "ptr call, ptr word, i64 mask, i64 value, ptr half, i64 expected")
        pauses = _load(f, Field.PAUSES)
        patience = f.binary("add", pauses, _load(f, Field.YIELDS))
        give_way, wait = _load_pointer(f, Field.GIVE_WAY), _load_pointer(f, Field.WAIT)
        sleepers = _field(f, Field.SLEEPERS)
        f.emit("br label %turn")
        f.label("turn")
        f.emit("%i = phi i64 [0, %entry], [%next, %again]")
        word = f.let(I64, "load atomic i64, ptr %word acquire, align 8")
        masked = f.let(I64, f"and {word}, %mask")
        same = f.let(BOOL, f"icmp eq {masked}, %value")
        f.emit(f"br {same}, label %same, label %changed")
        f.label("same")
        brief = f.let(BOOL, f"icmp slt i64 %i, {pauses.text}")
        f.emit(f"br {brief}, label %pause, label %longer")
        f.label("pause")
        self.target.emit_pause(f)
        f.emit("br label %again")
        f.label("longer")
        patient = f.let(BOOL, f"icmp slt i64 %i, {patience.text}")
        f.emit(f"br {patient}, label %yield, label %sleep")
        f.label("yield")
        self.target.emit_give_way(f, give_way)
        f.emit("br label %again")
        f.label("sleep")
        f.emit(f"{f.new()} = atomicrmw add ptr {sleepers}, i64 1 seq_cst")
        self.target.emit_wait(f, wait, "%half", Value("%expected", I64))
        f.emit(f"{f.new()} = atomicrmw sub ptr {sleepers}, i64 1 seq_cst")
        f.emit("br label %again")
        f.label("again")
        f.emit("%next = add i64 %i, 1")
        f.emit("br label %turn")
        f.label("changed")

    def _publish(self) -> None:
        """Set the claim word and wake those that sleep on it.

        A sleeper counts itself before it looks at the word, and here the word is set before the sleepers are
        counted, both sequentially consistent: one of the two sees the other.
        """
        f = self._function("publish", "ptr call, i64 claim")
        word, sleepers = _field(f, Field.CLAIM), _field(f, Field.SLEEPERS)
        wake = _load_pointer(f, Field.WAKE)
        f.emit(f"store atomic i64 %claim, ptr {word} seq_cst, align 8")
        count = f.let(I64, f"load atomic i64, ptr {sleepers} seq_cst, align 8")
        some = f.let(BOOL, f"icmp ne {count}, 0")
        half = _pointer(f, f"getelementptr i8, ptr {word}, i64 4")
        f.when(some, lambda: self.target.emit_wake(f, wake, half))

    def _bind(self) -> None:
        """Set what a step's record says in a thread's table; returns the batch size."""
        f = self._function("bind", "ptr call, i64 step, ptr table", "i64")
        distance = f.let(I64, f"mul i64 %step, {_load(f, Field.RECORD_BYTES).text}")
        record = _pointer(f, f"getelementptr i8, ptr {_load_pointer(f, Field.RECORDS)}, i64 {distance.text}")
        for binding in self.bindings:
            data = _pointer(f, f"getelementptr i8, ptr {record}, i64 {binding.offset}")
            if binding.indirect:
                data = _pointer(f, f"load ptr, ptr {data}, align 8")
            place = _pointer(f, f"getelementptr ptr, ptr %table, i64 {binding.entry}")
            f.emit(f"store ptr {data}, ptr {place}, align 8")
        batch = f.let(I64, f"load i64, ptr {record}, align 8")
        f.emit(f"ret {batch}")

    def _entry(self) -> None:
        """What a thread does on its way in and out."""
        f = self._function("", "ptr call, i64 thread, i64 generation", "i64")
        gate = _field(f, Field.GATE)
        is_caller = f.let(BOOL, "icmp eq i64 %thread, 0").text
        f.emit(f"br i1 {is_caller}, label %inside, label %arrive")

        f.label("arrive")
        seen = f.let(I64, f"load atomic i64, ptr {gate} acquire, align 8")
        stage = f.let(I64, f"lshr {seen}, 31").text
        open_ = f.let(I64, "shl i64 %generation, 1")  # with the closed bit zero
        ours = f.let(BOOL, f"icmp eq i64 {stage}, {open_.text}")
        f.emit(f"br {ours}, label %enter, label %late")
        f.label("enter")
        more = f.let(I64, f"add {seen}, 1")
        pair = _pointer(f, f"cmpxchg ptr {gate}, {seen}, {more} acq_rel monotonic, align 8")
        entered = f.let(BOOL, f"extractvalue {{ i64, i1 }} {pair}, 1")
        f.emit(f"br {entered}, label %inside, label %arrive")
        f.label("late")
        f.emit("ret i64 0")

        f.label("inside")
        saved = self.target.emit_fast_floats(f)
        self._stamp(f, is_caller, Field.BEGAN)
        distance = f.let(I64, f"mul i64 %thread, {_load(f, Field.PRIVATE_BYTES).text}").text
        table = _pointer(f, f"getelementptr i8, ptr {_load_pointer(f, Field.PRIVATE)}, i64 {distance}")
        self._copy_table(f, table)
        scratch = _pointer(f, f"getelementptr i8, ptr {table}, i64 {rounded(8 * self.table_size)}")
        f.call_void(f"{self.name}.work", f"ptr %call, i64 %thread, ptr {table}, ptr {scratch}")
        self._stamp(f, is_caller, Field.ENDED)
        self.target.emit_restore_floats(f, saved)
        f.emit(f"br i1 {is_caller}, label %close, label %leave")

        f.label("leave")
        old = f.let(I64, f"atomicrmw sub ptr {gate}, i64 1 acq_rel")
        state = f.let(I64, f"and {old}, {_LOW_HALF}")
        last = f.let(BOOL, f"icmp eq {state}, {CLOSED | 1}")
        # The caller may already be gone; its block is alive as long as this worker holds its job.
        wake = _load_pointer(f, Field.WAKE)
        f.when(last, lambda: self.target.emit_wake(f, wake, gate))
        f.emit("ret i64 0")

        f.label("close")
        f.emit(f"{f.new()} = atomicrmw or ptr {gate}, i64 {CLOSED} acq_rel")
        f.emit("br label %empty")
        f.label("empty")
        now = f.let(I64, f"load atomic i64, ptr {gate} acquire, align 8")
        inside = f.let(I64, f"and {now}, {_INSIDE}")
        alone = f.let(BOOL, f"icmp eq {inside}, 0")
        f.emit(f"br {alone}, label %out, label %others")
        f.label("others")
        state = f.let(I64, f"and {now}, {_LOW_HALF}")
        f.call_void(f"{self.name}.wait", f"ptr %call, ptr {gate}, i64 {_LOW_HALF}, {state}, ptr {gate}, {state}")
        f.emit("br label %empty")
        f.label("out")
        done = _load(f, Field.DONE)
        f.emit(f"ret {done}")

    def _stamp(self, f: Function, is_caller: str, field: int) -> None:
        """Note the time on thread 0, where a profile is taken."""
        if not self.profile:
            return

        def note() -> None:
            f.emit(f"store {self.target.emit_clock(f)}, ptr {_field(f, field)}, align 8")

        f.when(Value(is_caller, BOOL), note)

    def _copy_table(self, f: Function, table: str) -> None:
        """Copy the call's table to a thread's own one."""
        source = _load_pointer(f, Field.TABLE)

        def copy(i: Value, _: list[Value]) -> None:
            place = _pointer(f, f"getelementptr ptr, ptr {source}, {i}")
            item = _pointer(f, f"load ptr, ptr {place}, align 8")
            place = _pointer(f, f"getelementptr ptr, ptr {table}, {i}")
            f.emit(f"store ptr {item}, ptr {place}, align 8")

        if self.table_size:
            f.loop(0, self.table_size, copy)

    def _work(self) -> None:
        """All stages of all steps, as far as this thread takes part in them."""
        f = self._function("work", "ptr call, i64 thread, ptr table, ptr scratch")
        claim, finished = _field(f, Field.CLAIM), _field(f, Field.FINISHED)
        half = _pointer(f, f"getelementptr i8, ptr {claim}, i64 4")
        threads, first, limit = _load(f, Field.THREADS), _load(f, Field.FIRST), _load(f, Field.LIMIT)
        times = self._times(f)
        count = len(self.stages)
        # Where this thread believes to be: the stage's sequence number, which says stage and step, and its facts.
        state = {name: f.scratch(I64, 1, name).pointer for name in ("sequence", "stage", "step", "n", "units", "unit")}
        run = _pointer(f, "alloca ptr, align 8")

        def get(name: str) -> Value:
            return f.let(I64, f"load i64, ptr {state[name]}, align 8")

        def put(name: str, value: Value | int) -> None:
            f.emit(f"store i64 {value.text if isinstance(value, Value) else value}, ptr {state[name]}, align 8")

        def bind(step: Value) -> None:
            """Go to another step."""
            put("step", step)
            put("n", f.let(I64, f"call i64 @{self.name}.bind(ptr %call, {step}, ptr %table)"))

        def look_up(stage: Value) -> Value:
            """Go to another stage of the step; returns how many units it has."""
            row = _pointer(f, f"getelementptr {{ ptr, i64, i64, i64 }}, ptr @{self.name}.stages, {stage}")
            function = _pointer(f, f"load ptr, ptr {row}, align 8")
            f.emit(f"store ptr {function}, ptr {run}, align 8")
            scale, offset, chunk = (
                f.let(I64, f"load i64, ptr {_pointer(f, f'getelementptr i64, ptr {row}, i64 {k}')}, align 8")
                for k in (1, 2, 3)
            )
            total = f.binary("add", f.binary("mul", scale, get("n")), offset)
            total = f.index(f.max(total, 0))
            rounded = f.binary("sub", f.binary("add", total, chunk), Value("1", I64))
            units = f.binary("udiv", rounded, chunk)
            put("units", units)
            return units

        def run_unit(unit: Value) -> None:
            function = _pointer(f, f"load ptr, ptr {run}, align 8")
            f.emit(f"call void {function}(ptr %table, {get('n')}, {unit}, ptr %scratch, ptr {times})")

        put("sequence", _IDLE)
        put("units", 0)
        put("step", -1)
        starts = f.let(BOOL, "icmp eq i64 %thread, 0")
        f.emit(f"br {starts}, label %start, label %look")

        # Thread 0 opens the first stage as if it had finished the stage before.
        f.label("start")
        put("sequence", -1)
        put("stage", count - 1)
        put("step", f.binary("sub", first, Value("1", I64)))
        if self.profile:
            f.emit(f"store {self.target.emit_clock(f)}, ptr {_field(f, Field.STAMP)}, align 8")
        f.emit("br label %step_over")

        f.label("look")
        word = f.let(I64, f"load atomic i64, ptr {claim} acquire, align 8")
        sequence = f.let(I64, f"lshr {word}, 32")
        same = f.let(BOOL, f"icmp eq {sequence}, {get('sequence').text}")
        f.emit(f"br {same}, label %here, label %elsewhere")

        f.label("elsewhere")
        ended = f.let(BOOL, f"icmp eq {sequence}, {_END}")
        f.emit(f"br {ended}, label %out, label %move")
        f.label("move")
        put("sequence", sequence)
        step = f.binary("add", first, f.let(I64, f"udiv {sequence}, {count}"))
        stage = f.let(I64, f"urem {sequence}, {count}")
        put("stage", stage)
        f.when(f.let(BOOL, f"icmp ne {step}, {get('step').text}"), lambda: bind(step))
        look_up(stage)
        f.emit("br label %here")

        f.label("here")
        unit = f.let(I64, f"and {word}, {_LOW_HALF}")
        left = f.let(BOOL, f"icmp ult {unit}, {get('units').text}")
        f.emit(f"br {left}, label %take, label %wait")
        f.label("take")
        taken = f.let(I64, f"add {word}, 1")
        pair = _pointer(f, f"cmpxchg ptr {claim}, {word}, {taken} acq_rel monotonic, align 8")
        ours = f.let(BOOL, f"extractvalue {{ i64, i1 }} {pair}, 1")
        put("unit", unit)
        f.emit(f"br {ours}, label %run, label %look")

        f.label("run")
        run_unit(get("unit"))
        before = f.let(I64, f"atomicrmw add ptr {finished}, i64 1 acq_rel")
        total = f.let(I64, f"add {before}, 1")
        last = f.let(BOOL, f"icmp eq {total}, {get('units').text}")
        f.emit(f"br {last}, label %advance, label %look")

        f.label("wait")
        high = f.let(I64, f"and {word}, {_HIGH_HALF}")
        waited = f"ptr %call, ptr {claim}, i64 {_HIGH_HALF}, {high}, ptr {half}, {sequence}"
        f.call_void(f"{self.name}.wait", waited)
        f.emit("br label %look")

        # This thread finished the stage's last unit, so nobody else does anything until it publishes.
        f.label("advance")
        if self.profile:
            began = f.let(I64, f"load i64, ptr {_field(f, Field.STAMP)}, align 8")
            now = self._add_time(f, _load_pointer(f, Field.PROFILE), get("stage").text, began)
            f.emit(f"store {now}, ptr {_field(f, Field.STAMP)}, align 8")
        ends = f.let(BOOL, f"icmp eq {get('stage')}, {count - 1}")
        f.emit(f"br {ends}, label %step_done, label %stage_over")

        f.label("stage_over")
        put("stage", f.let(I64, f"add {get('stage')}, 1"))
        f.emit("br label %open")

        f.label("step_done")
        done = f.binary("add", get("step"), Value("1", I64))
        f.emit(f"store {done}, ptr {_field(f, Field.DONE)}, align 8")
        f.emit("br label %step_over")

        f.label("step_over")
        following = f.let(I64, f"add {get('step')}, 1")
        stop = f.let(I64, f"load atomic i64, ptr {_field(f, Field.STOP)} monotonic, align 8")
        stopped = f.let(BOOL, f"icmp ne {stop}, 0")
        complete = f.let(BOOL, f"icmp sge {following}, {limit.text}")
        f.emit(f"br {f.binary('or', stopped, complete)}, label %end, label %next_step")
        f.label("end")
        f.call_void(f"{self.name}.publish", f"ptr %call, i64 {_END << 32}")
        f.emit("br label %out")
        f.label("next_step")
        put("stage", 0)
        bind(following)
        f.emit("br label %open")

        f.label("open")
        sequence = f.let(I64, f"add {get('sequence')}, 1")
        put("sequence", sequence)
        units = look_up(get("stage"))
        small = f.let(BOOL, f"icmp ule {units}, 1")
        single = f.let(BOOL, f"icmp eq {threads}, 1")
        f.emit(f"br {f.binary('or', small, single)}, label %alone, label %together")

        f.label("alone")

        def run_one(unit: Value, _: list[Value]) -> None:
            run_unit(unit)

        f.loop(0, units, run_one)
        f.emit("br label %advance")

        # The first unit is this thread's own.
        f.label("together")
        f.emit(f"store atomic i64 0, ptr {finished} monotonic, align 8")
        place = f.let(I64, f"shl {sequence}, 32")
        claim_one = f.let(I64, f"or {place}, 1")
        f.call_void(f"{self.name}.publish", f"ptr %call, {claim_one}")
        put("unit", 0)
        f.emit("br label %run")

        f.label("out")

    def _times(self, f: Function) -> str:
        """This thread's row of the profile."""
        if not self.profile:
            return "null"
        kernels = sum(len(stage.kernels) for stage in self.stages)
        row = rounded(8 * kernels)
        distance = f.let(I64, f"mul i64 %thread, {row}")
        start = f.let(I64, f"add {distance}, {rounded(8 * len(self.stages))}").text
        return _pointer(f, f"getelementptr i8, ptr {_load_pointer(f, Field.PROFILE)}, i64 {start}")


def rounded(size: int) -> int:
    """Bytes rounded up, so that no two threads share a pair of cache lines."""
    return -(-size // LINE) * LINE


def _pointer(f: Function, instruction: str) -> str:
    """Append an instruction whose result has no type of ours; returns its name."""
    name = f.new("p")
    f.emit(f"{name} = {instruction}")
    return name


def _field(f: Function, field: int) -> str:
    return _pointer(f, f"getelementptr i8, ptr %call, i64 {field}")


def _load(f: Function, field: int) -> Value:
    return f.let(I64, f"load i64, ptr {_field(f, field)}, align 8")


def _load_pointer(f: Function, field: int) -> str:
    return _pointer(f, f"load ptr, ptr {_field(f, field)}, align 8")
