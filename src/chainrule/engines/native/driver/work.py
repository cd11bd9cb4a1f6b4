"""What a thread does inside: claim units and run them, and whoever runs a stage's last unit opens the next stage."""

from __future__ import annotations

from chainrule.engines.native.driver.block import END, HIGH_HALF, IDLE, LOW_HALF, Field
from chainrule.engines.native.driver.code import Form
from chainrule.engines.native.driver.profile import add_time, stamp, thread_times
from chainrule.engines.native.driver.units import STAGE
from chainrule.engines.native.ir import Value
from chainrule.engines.native.types import I64

__all__ = ["emit_work"]

_STATE = ("sequence", "stage", "step", "n", "units", "unit")


def emit_work(form: Form) -> None:
    """Emit ``@name.work``: all stages of all steps, as far as this thread takes part in them."""
    _Work(form).emit()


class _Work:
    """Writes that function, block by block.

    A thread keeps on its stack where it believes to be: the stage's sequence number, which says stage and step, and
    its facts.
    """

    def __init__(self, form: Form) -> None:
        self.form = form
        self.f = f = form.function("work", "ptr call, i64 thread, ptr table, ptr scratch")
        self.claim, self.finished = f.field(Field.CLAIM), f.field(Field.FINISHED)
        self.claim_half = f.at_byte(self.claim, 4)
        self.threads, self.first, self.limit = f.read(Field.THREADS), f.read(Field.FIRST), f.read(Field.LIMIT)
        self.times = thread_times(form, f)
        self.count = len(form.stages)
        self.state = {name: f.scratch(I64, 1, name).pointer for name in _STATE}
        self.kernels = f.pointer("alloca ptr, align 8")

    def emit(self) -> None:
        """Write it."""
        self._begin()
        word, sequence = self._look()
        self._find_place(sequence)
        self._take(word)
        self._run()
        self._wait(word, sequence)
        self._advance()
        self._step_over()
        self._open()
        self.f.label("out")

    # -- the thread's own state -----------------------------------------------------------------------------

    def _get(self, name: str) -> Value:
        return self.f.load_word(self.state[name])

    def _put(self, name: str, value: Value | int) -> None:
        self.f.put(value, self.state[name])

    def _bind(self, step: Value) -> None:
        """Go to another step."""
        self._put("step", step)
        bind = self.form.symbol("bind")
        self._put("n", self.f.let(I64, f"call i64 @{bind}(ptr %call, {step}, ptr %table)"))

    def _look_up(self, stage: Value) -> Value:
        """Go to another stage of the step; returns how many units it has."""
        f = self.f
        row = f.pointer(f"getelementptr {STAGE}, ptr @{self.form.symbol('stages')}, {stage}")
        f.put_pointer(f.load_pointer(row), self.kernels)
        scale, offset, chunk = (f.load_word(f.word(row, k)) for k in (1, 2, 3))
        total = f.whole("add", f.whole("mul", scale, self._get("n")), offset)
        total = f.index(f.max(total, 0))
        units = f.whole("udiv", f.whole("sub", f.whole("add", total, chunk), 1), chunk)
        self._put("units", units)
        return units

    def _run_unit(self, unit: Value) -> None:
        first, n = self.f.load_pointer(self.kernels), self._get("n")
        arguments = f"ptr %table, {n}, ptr {first}, {unit}, ptr %scratch, ptr {self.times}"
        self.f.call_void(self.form.symbol("unit"), arguments)

    # -- units of a stage that others work at, too ----------------------------------------------------------

    def _begin(self) -> None:
        """Thread 0 opens the first stage as if it had finished the stage before; the others look for a stage."""
        f = self.f
        self._put("sequence", IDLE)
        self._put("units", 0)
        self._put("step", -1)
        f.branch(f.holds("eq", f.argument("thread"), 0), "start", "look")
        f.label("start")
        self._put("sequence", -1)
        self._put("stage", self.count - 1)
        self._put("step", f.whole("sub", self.first, 1))
        stamp(self.form, f, Field.STAMP)
        f.jump("step_over")

    def _look(self) -> tuple[Value, Value]:
        """Whether the stage is still the one that this thread knows; returns the claim word and its sequence number."""
        f = self.f
        f.label("look")
        word = f.look(self.claim)
        sequence = f.whole("lshr", word, 32)
        f.branch(f.holds("eq", sequence, self._get("sequence")), "here", "elsewhere")
        return word, sequence

    def _find_place(self, sequence: Value) -> None:
        """Go where the sequence number says."""
        f = self.f
        f.label("elsewhere")
        f.branch(f.holds("eq", sequence, END), "out", "move")
        f.label("move")
        self._put("sequence", sequence)
        step = f.whole("add", self.first, f.whole("udiv", sequence, self.count))
        stage = f.whole("urem", sequence, self.count)
        self._put("stage", stage)
        f.when(f.holds("ne", step, self._get("step")), lambda: self._bind(step))
        self._look_up(stage)
        f.jump("here")

    def _take(self, word: Value) -> None:
        """Claim the next unit, if there is one left."""
        f = self.f
        f.label("here")
        unit = f.whole("and", word, LOW_HALF)
        f.branch(f.holds("ult", unit, self._get("units")), "take", "wait")
        f.label("take")
        ours = f.exchange(self.claim, word, f.whole("add", word, 1))
        self._put("unit", unit)
        f.branch(ours, "run", "look")

    def _run(self) -> None:
        """Run the unit; the last one of the stage to be finished advances."""
        f = self.f
        f.label("run")
        self._run_unit(self._get("unit"))
        total = f.whole("add", f.change("add", self.finished, 1), 1)
        f.branch(f.holds("eq", total, self._get("units")), "advance", "look")

    def _wait(self, word: Value, sequence: Value) -> None:
        """Wait for another sequence number."""
        f = self.f
        f.label("wait")
        high = f.whole("and", word, HIGH_HALF)
        waited = f"ptr %call, ptr {self.claim}, i64 {HIGH_HALF}, {high}, ptr {self.claim_half}, {sequence}"
        f.call_void(self.form.symbol("wait"), waited)
        f.jump("look")

    # -- this thread finished the stage's last unit, so nobody else does anything until it publishes ---------

    def _advance(self) -> None:
        """Go behind the stage; behind the last one the step is complete."""
        f = self.f
        f.label("advance")
        if self.form.profile:
            began, profile = f.read(Field.STAMP), f.read_pointer(Field.PROFILE)
            f.write(add_time(self.form, f, profile, self._get("stage"), began), Field.STAMP)
        f.branch(f.holds("eq", self._get("stage"), self.count - 1), "step_done", "stage_over")
        f.label("stage_over")
        self._put("stage", f.whole("add", self._get("stage"), 1))
        f.jump("open")
        f.label("step_done")
        f.write(f.whole("add", self._get("step"), 1), Field.DONE)
        f.jump("step_over")

    def _step_over(self) -> None:
        """Go to the next step, or end the call."""
        f = self.f
        f.label("step_over")
        following = f.whole("add", self._get("step"), 1)
        stop = f.look(f.field(Field.STOP), "monotonic")
        stopped = f.holds("ne", stop, 0)
        complete = f.holds("sge", following, self.limit)
        f.branch(f.binary("or", stopped, complete), "end", "next_step")
        f.label("end")
        f.call_void(self.form.symbol("publish"), f"ptr %call, i64 {END << 32}")
        f.jump("out")
        f.label("next_step")
        self._put("stage", 0)
        self._bind(following)
        f.jump("open")

    def _open(self) -> None:
        """Run a stage of one unit alone; publish a larger one, keeping its first unit."""
        f = self.f
        f.label("open")
        sequence = f.whole("add", self._get("sequence"), 1)
        self._put("sequence", sequence)
        units = self._look_up(self._get("stage"))
        small, single = f.holds("ule", units, 1), f.holds("eq", self.threads, 1)
        f.branch(f.binary("or", small, single), "alone", "together")
        f.label("alone")
        f.loop(0, units, lambda unit, _: self._run_unit(unit))
        f.jump("advance")
        f.label("together")
        f.emit(f"store atomic i64 0, ptr {self.finished} monotonic, align 8")
        claim = f.whole("or", f.whole("shl", sequence, 32), 1)
        f.call_void(self.form.symbol("publish"), f"ptr %call, {claim}")
        self._put("unit", 0)
        f.jump("run")
