"""Signatures of callables, read from source text, since importing peft or transformers takes seconds.

    read_signature("peft.LoraConfig").parameters["r"]        Parameter(is_required=False, …), whose `annotation` is int

It follows re-exports (`from .config import LoraConfig`, also those for type checkers only), functions, classes with an
`__init__`, and dataclasses with their bases. An annotation becomes the type itself where it is one of Python's own;
enumerations keep their values, and any other class is a placeholder of its name. A target whose signature cannot be
determined in this way is imported.
"""

import ast
import builtins
import dataclasses
import importlib
import importlib.util
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from vglm.config.targets import is_ours, locate

_KEEP_SIGNATURE = {"contextmanager", "no_grad", "lru_cache", "cache", "inference_mode", "recorded"}
_READABLE = (ast.Expression, ast.Name, ast.Attribute, ast.Subscript, ast.BinOp, ast.BitOr, ast.Tuple, ast.List)
_READABLE_LEAVES = (ast.Constant, ast.Load, ast.UnaryOp, ast.USub)


@dataclass(frozen=True)
class Parameter:
    """One parameter that can be given by name.

    Attributes:
        read_annotation: Reads its type, for which other modules may have to be read.
        is_required: Whether it has no default.
        is_optional: Whether its default is None.
    """

    read_annotation: Callable[[], Any]
    is_required: bool = True
    is_optional: bool = False

    @cached_property
    def annotation(self) -> Any:
        """Its type; None where nothing is known of it."""
        return self.read_annotation()


@dataclass(frozen=True)
class Signature:
    """What a callable takes by name.

    Attributes:
        parameters: By name.
        takes_any: Whether it takes other names besides.
        is_dataclass: Whether it is a dataclass, whose construction checks its values and does nothing else.
    """

    parameters: dict[str, Parameter] = field(default_factory=dict)
    takes_any: bool = False
    is_dataclass: bool = False


class NoSuchName(LookupError):
    """A module lacks a name.

    Attributes:
        owner: The module or class.
        name: What it lacks.
        names: What it has.
    """

    def __init__(self, owner: str, name: str, names: list[str]) -> None:
        super().__init__(f"{owner} has no {name}")
        self.owner, self.name, self.names = owner, name, names


class _Undecidable(Exception):
    """The source text alone does not say; the target has to be imported."""


def read_signature(target: str) -> Signature:
    """The parameters of a target.

    Args:
        target: A name that `vglm.config.targets.refusal` allows.

    Raises:
        NoSuchName: There is no such thing in its module.
        ImportError: It had to be imported, and cannot be.
        ConfigError: It had to be imported, and is not its package's own.
    """
    if is_ours(target):
        try:
            return _signature_of(*_find(target))
        except (_Undecidable, RecursionError):
            pass
    return imported_signature(target)


def missing_name(target: str) -> NoSuchName | None:
    """What the source text says against a name of the workbench or its libraries, whether or not it may be built."""
    try:
        _find(target)
    except NoSuchName as error:
        return error
    except (_Undecidable, RecursionError):
        pass
    return None


def imported_signature(target: str) -> Signature:
    """As `read_signature`, by importing."""
    try:
        component = locate(target)
    except AttributeError as error:
        owner_name, _, name = target.rpartition(".")
        raise NoSuchName(owner_name, name, dir(error.obj)) from error
    try:
        parameters = inspect.signature(component).parameters
    except (TypeError, ValueError):  # some of those written in C
        return Signature(takes_any=True)
    hints = _hints_of(component)
    named = {
        name: Parameter(partial(hints.get, name), parameter.default is parameter.empty, parameter.default is None)
        for name, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return Signature(named, takes_any, isinstance(component, type) and dataclasses.is_dataclass(component))


def _hints_of(component: Any) -> dict[str, Any]:
    is_plain_class = isinstance(component, type) and not dataclasses.is_dataclass(component)
    try:
        return typing.get_type_hints(component.__init__ if is_plain_class else component)
    except Exception:  # annotations that only resolve for a type checker: then nothing is known
        return {}


# --- names in source texts --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Module:
    name: str
    is_package: bool
    names: Mapping[str, ast.stmt]

    def absolute(self, node: ast.ImportFrom) -> str:
        """The module that an import means."""
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        parts = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*parts, node.module] if node.module else parts)


@cache
def _module(name: str) -> _Module | None:
    """A module's source, or None where there is no such module."""
    path = _path_of(name)
    if path is None:
        return None
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        raise _Undecidable from error
    names: dict[str, ast.stmt] = {}
    for statement in _statements(tree.body):
        for bound in _bound_by(statement):
            names.setdefault(bound, statement)
    return _Module(name, path.name == "__init__.py", names)


def _path_of(name: str) -> Path | None:
    """The file of a module; only the package it belongs to is asked for, and not imported."""
    root, *rest = name.split(".")
    spec = importlib.util.find_spec(root)
    if spec is None or not spec.origin or not spec.submodule_search_locations:
        return None
    path = Path(spec.origin)
    for part in rest:
        if path.name != "__init__.py":
            return None
        candidates = (path.parent / part / "__init__.py", path.parent / f"{part}.py")
        file = next((candidate for candidate in candidates if candidate.is_file()), None)
        if file is None:
            return None
        path = file
    return path


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, those under its conditions included."""
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _statements([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            yield from _statements([*statement.body, *(node for it in statement.handlers for node in it.body)])
        else:
            yield statement


def _bound_by(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [statement.name]
    if isinstance(statement, ast.ImportFrom):
        return [name.asname or name.name for name in statement.names]
    if isinstance(statement, ast.Import):
        return [name.asname or name.name.partition(".")[0] for name in statement.names]
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return [statement.target.id]
    return []


def _find(target: str) -> tuple[ast.stmt, _Module]:
    """The statement that defines the object of a dotted name, and its module."""
    owner_name, _, name = target.rpartition(".")
    module = _module(owner_name)
    if module is None:
        raise _Undecidable  # something in a class, or no module at all
    return _resolve(name, module)


def _resolve(name: str, module: _Module, depth: int = 0) -> tuple[ast.stmt, _Module]:
    """Follow a name through re-exports to where it is made."""
    statement = module.names.get(name)
    if statement is None:
        if "*" in module.names or "__getattr__" in module.names or depth:
            raise _Undecidable
        raise NoSuchName(module.name, name, list(module.names))
    if isinstance(statement, ast.ImportFrom):
        original = next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)
        source = module.absolute(statement)
        if source == module.name:  # of its own submodule
            raise _Undecidable
        other = _module(source)
        if other is None:
            raise _Undecidable
        return _resolve(original, other, depth + 1)
    return statement, module


# --- signatures -------------------------------------------------------------------------------------------------------


def _signature_of(statement: ast.stmt, module: _Module) -> Signature:
    if isinstance(statement, ast.FunctionDef):
        if not {_last_name(decorator) for decorator in statement.decorator_list} <= _KEEP_SIGNATURE:
            raise _Undecidable
        return _of_arguments(statement.args, module, is_method=False)
    if not isinstance(statement, ast.ClassDef):
        raise _Undecidable
    own = next((it for it in statement.body if isinstance(it, ast.FunctionDef) and it.name == "__init__"), None)
    if _is_dataclass(statement):
        if own is None:
            return Signature(_fields(statement, module), is_dataclass=True)
        return dataclasses.replace(_of_arguments(own.args, module, is_method=True), is_dataclass=True)
    is_odd = statement.keywords or statement.decorator_list
    if is_odd or any(isinstance(it, ast.FunctionDef) and it.name == "__new__" for it in statement.body):
        raise _Undecidable
    if own is not None:
        return _of_arguments(own.args, module, is_method=True)
    if len(statement.bases) != 1 or not isinstance(statement.bases[0], ast.Name):
        raise _Undecidable
    return _signature_of(*_resolve(statement.bases[0].id, module))


def _of_arguments(arguments: ast.arguments, module: _Module, *, is_method: bool) -> Signature:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    pairs = list(zip(positional, [*defaults, *arguments.defaults], strict=True))[is_method:]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    parameters = {
        argument.arg: Parameter(partial(_annotation, argument.annotation, module), default is None, _is_none(default))
        for argument, default in pairs
    }
    return Signature(parameters, takes_any=arguments.kwarg is not None)


def _fields(statement: ast.ClassDef, module: _Module) -> dict[str, Parameter]:
    """The fields that a dataclass takes, its bases' first."""
    fields: dict[str, Parameter] = {}
    for base in reversed(statement.bases):
        if not isinstance(base, ast.Name):
            raise _Undecidable
        made, where = _resolve(base.id, module) if base.id in module.names else (None, module)
        if isinstance(made, ast.ClassDef) and _is_dataclass(made):
            fields |= _fields(made, where)
    for node in statement.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            _add_field(fields, node.target.id, node, module)
    return fields


def _add_field(fields: dict[str, Parameter], name: str, node: ast.AnnAssign, module: _Module) -> None:
    if "ClassVar" in ast.dump(node.annotation):
        return
    default: ast.expr | None = node.value
    if isinstance(default, ast.Call) and _last_name(default) == "field":
        keywords = {keyword.arg: keyword.value for keyword in default.keywords}
        init = keywords.get("init")
        if isinstance(init, ast.Constant) and init.value is False:
            fields.pop(name, None)
            return
        default = keywords.get("default", keywords.get("default_factory"))
    elif "KW_ONLY" in ast.dump(node.annotation):
        return
    fields[name] = Parameter(partial(_annotation, node.annotation, module), default is None, _is_none(default))


def _is_dataclass(statement: ast.ClassDef) -> bool:
    if any(_last_name(decorator) != "dataclass" for decorator in statement.decorator_list):
        raise _Undecidable
    return bool(statement.decorator_list)


def _is_none(default: ast.expr | None) -> bool:
    return isinstance(default, ast.Constant) and default.value is None


def _last_name(node: ast.expr) -> str:
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


# --- annotations ------------------------------------------------------------------------------------------------------


class _StandIn(type):
    """The type of a class that was not imported: any attribute or item of it is a placeholder as well."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _stand_in(name)

    def __getitem__(cls, item: object) -> Any:
        return cls


def _stand_in(name: str) -> Any:
    return _StandIn(name, (), {})


class _Names(dict[str, Any]):
    """Resolves the names in a module's annotations."""

    def __init__(self, module: _Module) -> None:
        super().__init__()
        self.module = module

    def __missing__(self, name: str) -> Any:
        if name not in self.module.names and isinstance(getattr(builtins, name, None), type):
            return getattr(builtins, name)
        return _value_of(name, self.module)


def _annotation(node: ast.expr | None, module: _Module) -> Any:
    """The type that an annotation spells, or None where it cannot be determined."""
    try:
        return None if node is None else _evaluate(node, module)
    except (_Undecidable, NoSuchName, TypeError, AttributeError, SyntaxError):
        return None


def _evaluate(node: ast.expr, module: _Module) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = ast.parse(node.value, mode="eval").body
    if not all(isinstance(part, (*_READABLE, *_READABLE_LEAVES)) for part in ast.walk(node)):
        raise _Undecidable
    value = eval(compile(ast.Expression(node), module.name, "eval"), {"__builtins__": {}}, _Names(module))
    return types.NoneType if value is None else value


def _value_of(name: str, module: _Module) -> Any:
    statement = module.names.get(name)
    if statement is None:
        return _stand_in(name)
    if isinstance(statement, ast.Import | ast.ImportFrom) and (of_python := _of_python(name, statement)) is not None:
        return of_python
    if isinstance(statement, ast.Import):
        return _stand_in(name)
    try:
        made, where = _resolve(name, module)
    except (_Undecidable, NoSuchName):
        return _stand_in(name)
    if isinstance(made, ast.Assign):
        return _evaluate(made.value, where)
    if isinstance(made, ast.ImportFrom):
        return _value_of(name, where)
    try:
        if isinstance(made, ast.ClassDef) and _is_enumeration(made, where):
            return _enumeration(made)
    except (_Undecidable, NoSuchName):  # of a base
        pass
    return _stand_in(name)


def _of_python(name: str, statement: ast.Import | ast.ImportFrom) -> Any:
    """What an import takes out of the standard library, if it does."""
    alias = next(it for it in statement.names if (it.asname or it.name.partition(".")[0]) == name)
    source = (statement.module or "") if isinstance(statement, ast.ImportFrom) else alias.name
    is_relative = isinstance(statement, ast.ImportFrom) and statement.level > 0
    if is_relative or source.partition(".")[0] not in sys.stdlib_module_names:
        return None
    imported = importlib.import_module(source)
    return getattr(imported, alias.name) if isinstance(statement, ast.ImportFrom) else imported


def _is_enumeration(statement: ast.ClassDef, module: _Module) -> bool:
    for base in statement.bases:
        if _last_name(base).endswith("Enum"):
            return True
        if isinstance(base, ast.Name) and base.id in module.names:
            made, where = _resolve(base.id, module)
            if isinstance(made, ast.ClassDef) and _is_enumeration(made, where):
                return True
    return False


def _enumeration(statement: ast.ClassDef) -> Any:
    members = {
        target.id: node.value.value
        for node in statement.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return Enum(statement.name, members) if members else _stand_in(statement.name)
