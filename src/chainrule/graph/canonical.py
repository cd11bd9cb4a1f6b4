"""A graph as text that is equal for equal computations, for keys of caches."""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import BuiltinFunctionType, CodeType, EllipsisType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from chainrule.graph.graph import CONSTANT, INPUT, Graph
from chainrule.graph.op import Op
from chainrule.graph.tensor import Node

__all__ = ["canonical_text", "source_fingerprint"]

# Modules that hold nothing which a program sets: what is taken from them goes by its name.
_FIXED_MODULES = frozenset(
    {"chainrule", "cmath", "collections", "dataclasses", "enum", "functools", "itertools", "math", "numpy", "operator"}
)

# With these, a function reads what its code does not name.
_DYNAMIC_BUILTINS = frozenset(
    {"__import__", "compile", "eval", "exec", "getattr", "globals", "input", "locals", "open", "vars"}
)

_PLAIN_TYPES = (bool, int, float, complex, str, bytes, EllipsisType, type(None))


def canonical_text(graph: Graph) -> str | None:
    """Everything that the graph's results depend on, the ops' rules included; node numbers start at 0.

    None where that cannot be said: a rule of the user's own reads an object, a file, or a module of the user's.
    """
    numbers = {node.id: number for number, node in enumerate(graph.nodes)}
    ops = {node.op.name: node.op for node in graph.nodes if node.op not in (INPUT, CONSTANT)}
    try:
        lines = [_line(node, numbers) for node in graph.nodes]
        lines += [f"op {name} {_described(op)}" for name, op in sorted(ops.items())]
    except _IndescribableError:
        return None
    for kind, ends in (("input", graph.inputs), ("output", graph.outputs)):
        lines += [f"{kind} {name} {numbers[t.node.id]}.{t.index}" for name, t in ends.items() if t.node is not None]
    for entry in graph.state:
        assert entry.before.node is not None
        assert entry.after.node is not None
        after = f"{numbers[entry.after.node.id]}.{entry.after.index}"
        lines.append(f"state {entry.name} {numbers[entry.before.node.id]} {after}")
    return "\n".join(lines)


def _line(node: Node, numbers: Mapping[int, int]) -> str:
    if node.op is CONSTANT:
        return f"constant {_array(node.attrs['value'].array)}"
    inputs = " ".join(f"{numbers[t.node.id]}.{t.index}" for t in node.inputs if t.node is not None)
    attrs = " ".join(f"{name}={_described(value)}" for name, value in sorted(node.attrs.items()))
    return f"{node.op.name} {inputs} {attrs} {node.specs!r} {node.where}"


def source_fingerprint(folder: Path) -> str:
    """A hash over the Python files below a folder, so that a changed generator finds no old code."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


# --- Rules and values ----------------------------------------------------------------------------


class _IndescribableError(Exception):
    """No text says all that a value does."""


def _described(value: Any) -> str:
    return repr(value) if type(value) in _PLAIN_TYPES else " ".join(_Description().of(value))


class _Description:
    """Says what a value is, and a function does, in words that are equal only where that is."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, Any]] = {}

    def of(self, value: Any) -> Iterator[str]:
        """The words.

        Raises:
            _IndescribableError: it is, or refers to, an object whose behaviour is unknown.
        """
        yield type(value).__name__
        if type(value) is np.ndarray and not value.dtype.hasobject:
            yield _array(value)
        elif isinstance(value, np.generic | np.dtype) or type(value) in _PLAIN_TYPES:
            yield repr(value)
        elif id(value) in self._known:
            yield f"again {self._known[id(value)][0]}"
        else:
            self._known[id(value)] = len(self._known), value  # kept alive, so that no other value gets its number
            yield from self._compound(value)

    def _compound(self, value: Any) -> Iterator[str]:
        match value:
            case tuple() | list() if type(value) in (tuple, list):
                yield from self._all(value)
            case dict() if type(value) is dict:
                yield from self._all(item for pair in value.items() for item in pair)
            case set() | frozenset() if all(type(item) in _PLAIN_TYPES for item in value):
                yield from sorted(repr(item) for item in value)
            case Op():
                yield from self._op(value)
            case FunctionType():
                yield from self._function(value)
            case MethodType():
                yield from self._all((value.__func__, value.__self__))
            case functools.partial() if type(value) is functools.partial:
                yield from self._all((value.func, value.args, value.keywords))
            case BuiltinFunctionType() if not isinstance(value.__self__, ModuleType | None):
                yield from self._all((value.__name__, value.__self__))
            case _ if is_dataclass(value) and not isinstance(value, type) and _is_fixed(type(value).__module__):
                yield from self._all(getattr(value, item.name) for item in fields(value))
            case _:
                yield _name(value)

    def _all(self, values: Iterable[Any]) -> Iterator[str]:
        yield "("
        for value in values:
            yield from self.of(value)
        yield ")"

    def _op(self, op: Op) -> Iterator[str]:
        yield op.name
        if not _is_own(op):
            yield np.__version__
            yield from sorted(trait.name for trait in op.traits)
            yield from self._all((op.infer, op.reference, op.lowering, op.placement))

    def _function(self, function: FunctionType) -> Iterator[str]:
        yield from self._all((function.__defaults__, function.__kwdefaults__, vars(function), *_cells(function)))
        if _is_fixed(_module(function)):
            # The source goes with the version.
            yield f"{_module(function)} {function.__qualname__} {function.__code__.co_firstlineno}"
            return
        yield from self._code(function.__code__)
        for name in _globals_read(function.__code__):
            yield name
            if name in function.__globals__:
                yield from self.of(function.__globals__[name])
            elif name in _DYNAMIC_BUILTINS:
                raise _IndescribableError

    def _code(self, code: CodeType) -> Iterator[str]:
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        yield f"{code.co_code.hex()} {code.co_exceptiontable.hex()} {code.co_flags} {code.co_argcount} {names}"
        for constant in code.co_consts:
            yield from self._code(constant) if isinstance(constant, CodeType) else self.of(constant)


def _array(array: np.ndarray[Any, Any]) -> str:
    return f"{array.dtype.str} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def _name(value: Any) -> str:
    """What is known by its name: a module in which nothing is ever set, or what one defines."""
    if isinstance(value, ModuleType):
        module, name = value.__name__, ""
    else:
        module = "numpy" if isinstance(value, np.ufunc) else str(getattr(value, "__module__", None))
        name = str(getattr(value, "__qualname__", getattr(value, "__name__", "")))
    known = _is_fixed(module) or (module == "builtins" and name not in ("", *_DYNAMIC_BUILTINS))
    if not known or _found(module, name) is not value:
        raise _IndescribableError
    return f"{module} {name}"


def _found(module: str, name: str) -> Any:
    """What a module has under a dotted name; the module itself under none."""
    found: Any = sys.modules.get(module)
    for part in filter(None, name.split(".")):
        found = getattr(found, part, None)
    return found


def _is_fixed(module: str) -> bool:
    return module.partition(".")[0] in _FIXED_MODULES


def _module(function: FunctionType) -> str:
    """Where a function's code stands, whatever its `__module__` was set to."""
    return str(function.__globals__.get("__name__"))


@functools.cache
def _is_own(op: Op) -> bool:
    """Whether all of an op is this package's, so that it goes with the version."""
    rules = [op.function, op.infer, op.reference]
    for record in (*op.lowering, op.placement):
        if record is not None:
            rules += [value for value in vars(record).values() if callable(value)]
    return all(map(_is_ours, rules))


def _is_ours(value: Any) -> bool:
    """Whether a function, and every function that it closes over, stands in this package or in NumPy."""
    if isinstance(value, functools.partial):
        return all(map(_is_ours, (value.func, *value.args, *value.keywords.values())))
    if isinstance(value, MethodType):
        return False
    if not isinstance(value, FunctionType):
        return not callable(value) or _is_fixed(str(getattr(value, "__module__", "numpy")))
    return _is_fixed(_module(value)) and all(map(_is_ours, _cells(value)))


def _cells(function: FunctionType) -> Iterator[Any]:
    """What a function closes over.

    Raises:
        _IndescribableError: that is not set yet.
    """
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            raise _IndescribableError from None


def _globals_read(code: CodeType) -> Iterator[str]:
    """The global names that a function's code reads, in order.

    Raises:
        _IndescribableError: it imports a module of the user's.
    """
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME" and not _is_fixed(step.argval):
            raise _IndescribableError
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_read(constant)
