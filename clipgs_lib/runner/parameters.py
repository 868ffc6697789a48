"""Parameters of notebooks: what a ``parameters`` cell declares, and values checked against it before anything starts.

The cell is parsed as Python, not with papermill's inspection: that one works line by line with a regular expression,
skips a line with two equals signs (``PROMPT: str = "a=b"``) and does not understand ``str | None``.
"""

from __future__ import annotations

import ast
import difflib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..settings import SettingError, conform

_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}
_FOLDER_SUFFIXES = ("_DIR", "_FILE", "_PATH")


class ParameterError(ValueError):
    """A parameter that is not declared, not well declared, or has a value of another type."""


@dataclass(frozen=True)
class Parameter:
    """One declared parameter."""

    name: str
    type: str  # as annotated, e.g. "int", "str | None", "list[float]"
    default: Any

    def parse(self, text: str) -> Any:
        """The value that a command-line word stands for, read as the declared type and never guessed.

        Text stays text (``12e3456`` is no number where a str is declared); lists and dicts are JSON;
        ``none`` or ``null`` is None where None is allowed.

        Raises:
            ParameterError: when the word does not fit the type.
        """
        return self.check(_from_text(ast.parse(self.type, mode="eval").body, text, self))

    def check(self, value: Any) -> Any:
        """``value`` when it is of the declared type (an int where a float is declared becomes a float).

        Raises:
            ParameterError: otherwise, naming the parameter, the type, the value.
        """
        try:
            return conform(value, _hint(ast.parse(self.type, mode="eval").body), self.name, exact=True)
        except SettingError as error:
            finite = isinstance(error.value, float) and not math.isfinite(error.value)
            quotes = self.type == "str" and error.value is not None
            hint = "it must be finite" if finite else "put it in quotes" if quotes else ""
            raise self.refuse(error.value, hint) from None

    def refuse(self, value: Any, hint: str = "") -> ParameterError:
        """The error for a value that does not fit."""
        return ParameterError(f"{self.name} must be {self.type}, got {value!r}" + (f"; {hint}" if hint else ""))


def declared_parameters(source: str) -> dict[str, Parameter]:
    """Parameters declared by the source of a ``parameters`` cell, in order.

    Every statement must be ``NAME: type = literal``; the annotation may be left out where the default's type is plain.

    Raises:
        ParameterError: for any other statement, an unknown type, or a default that is not of its type.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ParameterError(f"the parameters cell must be valid Python, got {error}") from None
    found: dict[str, Parameter] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        name, kind, value = _declaration(statement)
        try:
            default = ast.literal_eval(value)
        except ValueError:
            raise ParameterError(f"the default of {name} must be a literal, got {ast.unparse(value)}") from None
        parameter = Parameter(name, kind or _type_of(name, default), default)
        found[name] = Parameter(name, parameter.type, parameter.check(default))
    return found


def resolve_parameters(
    declared: Mapping[str, Mapping[str, Parameter]],
    words: Iterable[tuple[str, str]] = (),
    document: Mapping[str, Any] | None = None,
    others: Collection[str] = (),
) -> dict[str, dict[str, Any]]:
    """Values for each notebook: the parameters file first, then the command line's words over it.

    A flat name goes to every notebook that declares it, and at least one must. In the file, a key that is a
    notebook's name holds a section for that notebook alone, which wins over the flat names.

    Args:
        declared: notebook name -> its declared parameters.
        words: ``(NAME, VALUE)`` from the command line; a relative path for a ``*_DIR``, ``*_FILE`` or ``*_PATH``
            parameter counts from the shell's folder and is made absolute.
        document: the parsed parameters file.
        others: notebooks that are there but not run now; the file may have sections for them.

    Returns:
        notebook name -> {parameter: typed value}, only for those that were given.

    Raises:
        ParameterError: all problems at once, one per line.
    """
    values: dict[str, dict[str, Any]] = {notebook: {} for notebook in declared}
    sections: list[tuple[str, str, Any]] = []
    problems: list[str] = []

    def place(notebooks: Iterable[str], name: str, value: Any, from_text: bool) -> None:
        holders = [notebook for notebook in notebooks if name in declared[notebook]]
        if not holders:
            problems.append(_unknown(name, {n: declared[n] for n in notebooks}))
        for notebook in holders:
            parameter = declared[notebook][name]
            try:
                typed = parameter.parse(value) if from_text else parameter.check(value)
                values[notebook][name] = _absolute(name, typed)
            except ParameterError as error:
                problems.append(f"{notebook}: {error}")

    for key, value in (document or {}).items():
        if key in declared and isinstance(value, Mapping):
            sections += [(key, str(name), entry) for name, entry in value.items()]
        elif key not in others:
            place(declared, str(key), value, from_text=False)
    for notebook, name, value in sections:
        place([notebook], name, value, from_text=False)
    for name, word in words:
        place(declared, name, word, from_text=True)
    if problems:
        raise ParameterError("\n".join(dict.fromkeys(problems)))
    return values


def read_parameters_file(path: Path) -> dict[str, Any]:
    """Parse a ``.yaml``, ``.yml`` or ``.json`` file of parameters: flat names, and sections named like notebooks.

    Raises:
        ParameterError: when it cannot be read, or is not a mapping.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        raise ParameterError(f"{path}: must be a readable YAML or JSON file, got: {error}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ParameterError(f"{path}: must hold NAME: value pairs, got a {type(document).__name__}")
    return document


def _declaration(statement: ast.stmt) -> tuple[str, str, ast.expr]:
    """Name, annotation ("" when absent) and value of one statement of the cell."""
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        kind = ast.unparse(statement.annotation)
        if _hint(statement.annotation) is None:
            known = "str, int, float, bool, list[...], dict[str, ...] or these | None"
            raise ParameterError(f"{statement.target.id} must be annotated with {known}, got {kind}")
        return statement.target.id, kind, statement.value
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id, "", statement.value
    raise ParameterError(f"the parameters cell must hold only NAME: type = literal, got {ast.unparse(statement)!r}")


def _hint(node: ast.expr) -> Any:
    """The type that an annotation stands for, None for one that parameters cannot have."""
    match node:
        case ast.Name(id=name):
            return _TYPES.get(name)
        case ast.Constant(value=None):
            return type(None)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            first, second = _hint(left), _hint(right)
            return first | second if first and second else None
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return list[_hint(inner)] if _hint(inner) else None  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[ast.Name(id="str"), inner])):
            return dict[str, _hint(inner)] if _hint(inner) else None  # type: ignore[misc]
    return None


def _type_of(name: str, default: Any) -> str:
    if type(default) in _TYPES.values():
        return type(default).__name__
    raise ParameterError(f"{name} must be annotated, its type does not follow from {default!r}")


def _from_text(node: ast.expr, text: str, parameter: Parameter) -> Any:
    """Read a command-line word as the annotated type; `Parameter.check` checks what is inside lists and dicts."""
    match node:
        case ast.BinOp(left=left, right=right):
            if text.lower() in ("none", "null") and "None" in ast.unparse(node):
                return None
            first, second = (right, left) if ast.unparse(left) in ("None", "str") else (left, right)
            if ast.unparse(second) == "None":
                return _from_text(first, text, parameter)
            try:
                return _from_text(first, text, parameter)
            except ParameterError:
                return _from_text(second, text, parameter)
        case ast.Name(id="str"):
            return text
        case ast.Name(id="bool"):
            if text.lower() not in _WORDS:
                raise parameter.refuse(text, "write true or false")
            return _WORDS[text.lower()]
        case ast.Name(id="int" | "float" as kind):
            try:
                return _TYPES[kind](text)
            except ValueError:
                raise parameter.refuse(text) from None
        case ast.Constant(value=None):
            raise parameter.refuse(text, "write none")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise parameter.refuse(text, 'write JSON, e.g. ["a", "b"]') from None


def _absolute(name: str, value: Any) -> Any:
    if name.endswith(_FOLDER_SUFFIXES) and isinstance(value, str) and value:
        return str(Path(value).expanduser().absolute())
    return value


def _unknown(name: str, declared: Mapping[str, Mapping[str, Parameter]]) -> str:
    known = sorted({other for names in declared.values() for other in names})
    near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"declared are {', '.join(known) or 'none'}"
    return f"{name} must be declared in the parameters cell of {', '.join(declared)}, but is not; {hint}"
