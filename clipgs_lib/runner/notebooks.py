"""Notebooks of a folder: title, question, what identifies their source, and parameters, checked before anything starts.

A ``parameters`` cell is parsed as Python, not with papermill's inspection: that one works line by line with a regular
expression, skips a line with two equals signs (``PROMPT: str = "a=b"``) and does not understand ``str | None``.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import math
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..settings import SettingError, conform, read_file

_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
# type -> what reads a command-line word as it, with ValueError or KeyError for another
_READERS: dict[type, Callable[[str], Any]] = {
    types.NoneType: lambda text: {"none": None, "null": None}[text.lower()],
    bool: lambda text: _WORDS[text.lower()],
    **dict.fromkeys((list, dict), json.loads),
    **{kind: kind for kind in (int, float, str)},
}
_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}


class ParameterError(ValueError):
    """A parameter that is not declared, not well declared, or has a value of another type."""


@dataclass(frozen=True)
class Parameter:
    """One declared parameter."""

    name: str
    type: str  # as annotated, e.g. "int", "str | None", "list[float]"
    default: Any
    comment: str = ""  # what stands behind it on its line

    @property
    def names_path(self) -> bool:
        """Whether texts in it are paths: its name ends in _DIR, _FILE or _PATH, or its comment says file or folder."""
        return self.name.endswith(("_DIR", "_FILE", "_PATH")) or bool(
            re.search(r"(?i)\b(file|folder)s?\b", self.comment)
        )

    def parse(self, text: str) -> Any:
        """The value that a command-line word stands for, read as the declared type, never guessed; or ParameterError.

        Text stays text (``12e3456`` is no number where a str is declared); lists and dicts are JSON;
        ``none`` or ``null`` is None where None is allowed.
        """
        return self.check(_from_text(self._hint, text, self))

    def check(self, value: Any) -> Any:
        """``value`` when it is of the declared type (an int will do for a float), as that type; or ParameterError."""
        try:
            return conform(value, self._hint, self.name, exact=True)
        except SettingError as error:
            finite = isinstance(error.value, float) and not math.isfinite(error.value)
            quotes = self.type == "str" and error.value is not None
            hint = "it must be finite" if finite else "put it in quotes" if quotes else ""
            raise self.refuse(error.value, hint) from None

    def refuse(self, value: Any, hint: str = "") -> ParameterError:
        """The error for a value that does not fit."""
        return ParameterError(f"{self.name} must be {self.type}, got {value!r}" + (f"; {hint}" if hint else ""))

    def from_shell(self, value: Any) -> Any:
        """``value``, and where it is a path, that path made absolute from the shell's folder, with ``~`` filled in.

        Where the comment says that a name will do as well, a text at which nothing lies is taken for one.
        """
        if isinstance(value, list):
            return [self.from_shell(entry) for entry in value]
        if not (self.names_path and isinstance(value, str)):
            return value
        model, text = self.split(value)
        path = Path(os.path.expanduser(text))  # noqa: PTH111 - no error without a home
        if not text or (re.search(r"\bname\b", self.comment) and not path.exists()):
            return value
        return model + str(path.resolve())

    def split(self, text: str) -> tuple[str, str]:
        """``MODEL@`` and the path, where the comment speaks of ``MODEL@FILE``; elsewhere nothing and the path."""
        model, at, path = text.partition("@") if "MODEL@FILE" in self.comment else ("", "", text)
        return model + at, path

    @property
    def _hint(self) -> Any:
        return _hint(ast.parse(self.type, mode="eval").body)


def declared_parameters(source: str) -> dict[str, Parameter]:
    """Parameters declared by the source of a ``parameters`` cell, in order; ParameterError for anything else in it.

    Every statement must be ``NAME: type = literal``; the annotation may be left out where the default's type is plain.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ParameterError(f"the parameters cell must be valid Python, got {error}") from None
    declared: dict[str, Parameter] = {}
    for statement in tree.body:
        match statement:
            case ast.Expr(value=ast.Constant()):
                continue  # a docstring
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=ast.expr() as value):
                kind = ast.unparse(annotation)
                if _hint(annotation) is None:
                    known = "str, int, float, bool, list[...], dict[str, ...] or these | None"
                    raise ParameterError(f"{name} must be annotated with {known}, got {kind}")
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                kind = ""
            case _:
                must = "the parameters cell must hold only NAME: type = literal"
                raise ParameterError(f"{must}, got {ast.unparse(statement)!r}")
        try:
            default = ast.literal_eval(value)
        except ValueError:
            raise ParameterError(f"the default of {name} must be a literal, got {ast.unparse(value)}") from None
        if not kind and type(default) not in _TYPES.values():
            raise ParameterError(f"{name} must be annotated, its type does not follow from {default!r}")
        line = source.encode().splitlines()[(statement.end_lineno or 1) - 1][statement.end_col_offset :].decode()
        parameter = Parameter(name, kind or type(default).__name__, default, line.partition("#")[2].strip())
        declared[name] = replace(parameter, default=parameter.check(default))
    return declared


def resolve_parameters(
    declared: Mapping[str, Mapping[str, Parameter]],
    words: Iterable[tuple[str, str]] = (),
    document: Mapping[str, Any] | None = None,
    others: Collection[str] = (),
) -> dict[str, dict[str, Any]]:
    """Values for each notebook, typed, of those that were given: the parameters file first, the command line over it.

    A flat name goes to every notebook that declares it, and at least one must. In the file, a key that is a notebook's
    name holds a section for that notebook alone, which wins over the flat names; ``others`` are notebooks that are
    there but not run now, for which it may have sections too. ``words`` are ``(NAME, VALUE)`` of the command line.
    Paths in either count from the shell's folder, see `Parameter.from_shell`.

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
                values[notebook][name] = parameter.from_shell(typed)
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
    """Parse a ``.yaml``, ``.yml`` or ``.json`` file of parameters: flat names, and sections named like notebooks."""
    try:
        return read_file(path)
    except OSError as error:
        raise ParameterError(f"{path}: must be a readable YAML or JSON file, got: {error}") from None
    except ValueError as error:
        raise ParameterError(str(error)) from None


def _hint(node: ast.expr) -> Any:
    """The type that an annotation stands for, None for one that parameters cannot have."""
    match node:
        case ast.Name(id=name):
            return _TYPES.get(name)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            sides = [types.NoneType if ast.unparse(side) == "None" else _hint(side) for side in (left, right)]
            return sides[0] | sides[1] if all(sides) else None
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return list[_hint(inner)] if _hint(inner) else None  # type: ignore[misc]
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[ast.Name(id="str"), inner])):
            return dict[str, _hint(inner)] if _hint(inner) else None  # type: ignore[misc]
    return None


def _from_text(hint: Any, text: str, parameter: Parameter) -> Any:
    """Read a command-line word as a type; `Parameter.check` checks what is inside lists and dicts."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    plain = [typing.get_origin(kind) or kind for kind in kinds]
    for kind in sorted(plain, key=[types.NoneType, int, float, bool, list, dict, str].index):  # every word is a text
        with suppress(ValueError, KeyError):
            return _READERS[kind](text)
    json_ = 'write JSON, e.g. ["a", "b"]' if {list, dict} & set(plain) else ""
    raise parameter.refuse(text, "write true or false" if bool in plain else json_)


def _unknown(name: str, declared: Mapping[str, Mapping[str, Parameter]]) -> str:
    known = sorted({other for names in declared.values() for other in names})
    near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"declared are {', '.join(known) or 'none'}"
    return f"{name} must be declared in the parameters cell of {', '.join(declared)}, but is not; {hint}"


class NotebookError(ValueError):
    """A notebook that cannot be run as asked; the message says which, why and what to do."""


@dataclass(frozen=True)
class Notebook:
    """One notebook on disk, read but not executed."""

    path: Path  # absolute
    name: str  # file name without ".ipynb"
    title: str  # first heading of the first markdown cell, else the name
    question: str  # what follows **Question** in the first markdown cell, else ""
    cells: int  # how many cells it has
    seconds: float  # what follows **Runtime** in the first markdown cell ("About 60 s ..."), else 0
    parameters: dict[str, Parameter] = field(repr=False)  # declared in the cell tagged "parameters"
    digest: str = field(repr=False)  # sha256 of cell types, sources and tags; outputs do not count


def read_notebook(path: Path) -> Notebook:
    """Read one notebook file; NotebookError when it is no version-4 notebook or is not Python.

    Also when it has no cell tagged ``parameters``: papermill would ignore parameters then, and say nothing.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        cells = document["cells"]
        if document["nbformat"] != 4:
            raise NotebookError(f"{path}: the notebook format must be 4, got {document['nbformat']}; save it again")
        parts = [
            (cell["cell_type"], "".join(cell["source"]), tuple(map(str, cell.get("metadata", {}).get("tags", []))))
            for cell in cells
        ]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise NotebookError(f"{path}: must be a Jupyter notebook (JSON with cells), got {error!r}") from None
    language = document.get("metadata", {}).get("kernelspec", {}).get("language", "python")
    if language != "python":
        raise NotebookError(f"{path}: the kernel must be Python, got {language!r}")
    tagged = [source for kind, source, tags in parts if kind == "code" and "parameters" in tags]
    if len(tagged) != 1:
        raise NotebookError(
            f'{path}: exactly one code cell must carry the tag "parameters", got {len(tagged)}; '
            "add it in JupyterLab's property inspector"
        )
    try:
        parameters = declared_parameters(tagged[0])
    except ParameterError as error:
        raise NotebookError(f"{path}: {error}") from None
    head = parts[0][1] if parts[0][0] == "markdown" else ""
    heading = re.search(r"^#+\s+(.+?)\s*#*\s*$", head, re.MULTILINE)
    asked = re.search(r"\*\*Question[.:]?\*\*[.:]?\s*(.+?)\s*(?:\n\s*\n|\n\s*\*\*|\n[-*#]|\Z)", head, re.DOTALL)
    runtime = re.search(r"\*\*Runtime[.:]?\*\*.*?(\d+(?:\.\d+)?) (s|min)\b", head)
    return Notebook(
        path=path.resolve(),
        name=path.stem,
        title=heading.group(1) if heading else path.stem,
        question=" ".join(asked.group(1).split()) if asked else "",
        cells=len(parts),
        seconds=float(runtime[1]) * {"s": 1, "min": 60}[runtime[2]] if runtime else 0.0,
        parameters=parameters,
        digest=hashlib.sha256(json.dumps(parts).encode()).hexdigest(),
    )


def find_notebooks(folder: Path, names: Sequence[str] = ()) -> list[Notebook]:
    """The named notebooks of a folder (not further down), or all of them, in order of their file names.

    Names come with or without ``.ipynb``, or as a number prefix such as ``01``. NotebookError when the folder or a name
    does not exist, or a notebook cannot be read.
    """
    if not folder.is_dir():
        raise NotebookError(f"the notebooks folder must exist, got {folder}; pass --notebooks-dir")
    there = {path.stem: path for path in sorted(folder.glob("*.ipynb")) if not path.name.startswith(".")}
    if not there:
        raise NotebookError(f"the folder must hold at least one *.ipynb, found none in {folder}; pass --notebooks-dir")
    if not names:
        return [read_notebook(path) for path in there.values()]
    chosen = {_match(name, list(there), folder) for name in names}
    return [read_notebook(path) for stem, path in there.items() if stem in chosen]


def _match(name: str, stems: list[str], folder: Path) -> str:
    stem = Path(name).name.removesuffix(".ipynb")
    if stem in stems:
        return stem
    numbered = [other for other in stems if other.split("_")[0] == stem]
    if len(numbered) == 1:
        return numbered[0]
    near = difflib.get_close_matches(stem, stems, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(stems)}"
    raise NotebookError(f"there must be a notebook {name!r} in {folder}; {hint}")
