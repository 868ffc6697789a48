"""Notebooks of a folder: their title, question, parameters and what identifies their source."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .parameters import Parameter, ParameterError, declared_parameters


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
        found = [
            (cell["cell_type"], "".join(cell["source"]), tuple(map(str, cell.get("metadata", {}).get("tags", []))))
            for cell in cells
        ]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise NotebookError(f"{path}: must be a Jupyter notebook (JSON with cells), got {error!r}") from None
    language = document.get("metadata", {}).get("kernelspec", {}).get("language", "python")
    if language != "python":
        raise NotebookError(f"{path}: the kernel must be Python, got {language!r}")
    tagged = [source for kind, source, tags in found if kind == "code" and "parameters" in tags]
    if len(tagged) != 1:
        raise NotebookError(
            f'{path}: exactly one code cell must carry the tag "parameters", got {len(tagged)}; '
            "add it in JupyterLab's property inspector"
        )
    try:
        parameters = declared_parameters(tagged[0])
    except ParameterError as error:
        raise NotebookError(f"{path}: {error}") from None
    head = found[0][1] if found[0][0] == "markdown" else ""
    heading = re.search(r"^#+\s+(.+?)\s*#*\s*$", head, re.MULTILINE)
    asked = re.search(r"\*\*Question[.:]?\*\*[.:]?\s*(.+?)\s*(?:\n\s*\n|\n\s*\*\*|\n[-*#]|\Z)", head, re.DOTALL)
    runtime = re.search(r"\*\*Runtime[.:]?\*\*.*?(\d+(?:\.\d+)?) (s|min)\b", head)
    return Notebook(
        path=path.resolve(),
        name=path.stem,
        title=heading.group(1) if heading else path.stem,
        question=" ".join(asked.group(1).split()) if asked else "",
        cells=len(found),
        seconds=float(runtime[1]) * {"s": 1, "min": 60}[runtime[2]] if runtime else 0.0,
        parameters=parameters,
        digest=hashlib.sha256(json.dumps(found).encode()).hexdigest(),
    )


def find_notebooks(folder: Path, names: Sequence[str] = ()) -> list[Notebook]:
    """The named notebooks of a folder, or all of them, in order of their file names.

    Args:
        folder: where ``*.ipynb`` lie (not searched further down).
        names: file names with or without ``.ipynb``, or a number prefix such as ``01``; none means all.

    Raises:
        NotebookError: when the folder or a name does not exist, or a notebook cannot be read.
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
