#!/usr/bin/env python3
"""The form that every committed notebook has, checked; and the way to bring an executed notebook into it.

    python .ci/check_notebooks.py [NOTEBOOK...]        check (all in notebooks/ when none is named)
    python .ci/check_notebooks.py --strip EXECUTED...  write notebooks/NAME.ipynb from what the runner executed

An author edits notebooks/NAME.ipynb, runs `clipgs notebooks run NAME`, then `--strip build/notebooks/NAME.ipynb`.
Outputs stay only in cells tagged `nbval-check-output` (short text that nbval compares) and in the one cell that may
be tagged `keep-png` (one static picture); execution counts stay, so that a reader sees the notebook ran top to bottom.
"""

from __future__ import annotations

import argparse
import ast
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from clipgs_lib.files import write_text
from clipgs_lib.runner.notebooks import ParameterError, declared_parameters
from clipgs_lib.runtime import REQUIRED

ROOT = Path(__file__).resolve().parent.parent
HEAD = {
    "a title (a line `# ...`)": r"^# \S",
    "**Question**": r"\*\*question",
    "what you will see": r"you will see",
    "its inputs": r"\binputs?\b",
    "its outputs": r"\boutputs?\b",
    "the measured runtime in seconds": r"\bruntime\b.*?\d+\s*s\b",
}
MAX_BYTES, MAX_LINES, MAX_FUNCTION, MAX_CHECKED = 200_000, 15, 5, 4_000
CHECKED, PICTURE = "nbval-check-output", "keep-png"
ABSOLUTE = re.compile(r"(?<![\w.~:/\-])/(?:[\w.\-]+/)+[\w.\-]*|\b[A-Za-z]:\\\w|file://")


def problems(path: Path) -> list[str]:
    """Everything in which a notebook departs from the form, one sentence each."""
    size = path.stat().st_size
    found = [f"must be at most {MAX_BYTES:,} bytes, got {size:,}"] if size > MAX_BYTES else []
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (ValueError, nbformat.ValidationError) as error:
        return [*found, f"must be a valid notebook, got: {str(error).splitlines()[0]}"]
    code = [(number, cell) for number, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code"]
    found += [*_head(notebook), *_parameters(notebook), *_start(code, path.stem), *_end(notebook, code)]
    for number, cell in code:
        found += [f"cell {number} {sentence}" for sentence in _code(cell)]
    found += [*_execution(code), *_outputs(code), *_metadata(notebook)]
    return found


def _head(notebook: NotebookNode) -> Iterator[str]:
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown":
        yield "cell 1 must be markdown with title and question"
        return
    for what, pattern in HEAD.items():
        if not re.search(pattern, first.source, re.IGNORECASE | re.MULTILINE):
            yield f"cell 1 must say {what}"


def _parameters(notebook: NotebookNode) -> Iterator[str]:
    cell = notebook.cells[1] if len(notebook.cells) > 1 else None
    if cell is None or cell.cell_type != "code" or "parameters" not in _tags(cell):
        yield 'cell 2 must be code tagged "parameters"'
        return
    try:
        declared = declared_parameters(cell.source)
    except ParameterError as error:
        yield f"cell 2: {error}"
        return
    bare = [ast.unparse(s) for s in ast.parse(cell.source).body if isinstance(s, ast.Assign)]
    if bare:
        yield f"cell 2 must annotate every parameter, got {', '.join(bare)}"
    missing = [name for name in REQUIRED if name not in declared]
    if missing:
        yield f"cell 2 must declare {', '.join(missing)}"
    for name in declared:
        if not name.isupper():
            yield f"cell 2: parameters must be UPPER_CASE, got {name}"
    if sum("parameters" in _tags(other) for other in notebook.cells) > 1:
        yield 'only one cell may be tagged "parameters"'


def _start(code: list[tuple[int, NotebookNode]], name: str) -> Iterator[str]:
    """The second code cell holds all imports and `runtime.start`; nothing is imported elsewhere."""
    for position, (number, cell) in enumerate(code):
        tree = _tree(cell)
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        if position != 1 and imports:
            yield f"cell {number} must not import; all imports belong into the second code cell"
    calls = _calls(code[1][1], "start") if len(code) > 1 else []
    if not calls:
        yield "the second code cell must import and call runtime.start(...)"
    elif not (calls[0].args and isinstance(calls[0].args[0], ast.Constant) and calls[0].args[0].value == name):
        yield f'runtime.start must be given the notebook\'s name, "{name}"'


def _end(notebook: NotebookNode, code: list[tuple[int, NotebookNode]]) -> Iterator[str]:
    if not code or not _calls(code[-1][1], "record"):
        yield "the last code cell must call runtime.record(...)"
    closing = "\n".join(cell.source for cell in notebook.cells[-4:] if cell.cell_type == "markdown").lower()
    for word in ("found", "caveat", "next"):
        if word not in closing:
            yield f'the closing markdown must say what we found, caveats and what comes next; "{word}" is missing'


def _code(cell: NotebookNode) -> Iterator[str]:
    if not cell.source.strip():
        yield "must not be empty"
    if re.search(r"^\s*[%!]", cell.source, re.MULTILINE):
        yield "must be plain Python, without % magics and ! commands"
    lines = [line for line in cell.source.splitlines() if line.strip()]
    if len(lines) > MAX_LINES and "parameters" not in _tags(cell):
        yield f"must have at most {MAX_LINES} lines of code, got {len(lines)}; move logic into clipgs_lib"
    for node in ast.walk(_tree(cell)):
        if isinstance(node, ast.ClassDef):
            yield f"must not define classes, got {node.name}; move it into clipgs_lib"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION:
                yield f"must not define functions over {MAX_FUNCTION} lines, got {node.name} with {length}"


def _execution(code: list[tuple[int, NotebookNode]]) -> Iterator[str]:
    counts = [cell.execution_count for _, cell in code]
    if counts != list(range(1, len(code) + 1)):
        yield f"must be executed once from top to bottom (counts 1 to {len(code)}), got {counts}"


def _outputs(code: list[tuple[int, NotebookNode]]) -> Iterator[str]:
    for number, cell in code:
        if any(output.output_type == "error" for output in cell.outputs):
            yield f"cell {number} must not end in an error"
        elif CHECKED in _tags(cell):
            yield from (f"cell {number} {sentence}" for sentence in _checked(cell))
        elif PICTURE in _tags(cell):
            kinds = [set(output.get("data", {})) for output in cell.outputs]
            if len(kinds) != 1 or "image/png" not in kinds[0] or not kinds[0] <= {"image/png", "text/plain"}:
                yield f"cell {number} must have exactly one output, a PNG, got {[sorted(kind) for kind in kinds]}"
        elif cell.outputs:
            yield f"cell {number} must have no outputs (tag it {CHECKED} or {PICTURE} where they earn their place)"
    checked = [cell for _, cell in code if CHECKED in _tags(cell)]
    if not checked:
        yield f"at least one cell must be tagged {CHECKED}, else nbval compares nothing"
    if sum(PICTURE in _tags(cell) for _, cell in code) > 1:
        yield f"at most one cell may be tagged {PICTURE}"
    for number, cell in code:
        for match in ABSOLUTE.finditer(_text(cell)):
            yield f"cell {number}: outputs must not hold absolute paths, got {match.group()!r}"
        host = socket.gethostname()
        if len(host) > 3 and host != "localhost" and re.search(rf"\b{re.escape(host)}\b", _text(cell)):
            yield f"cell {number}: outputs must not name the machine, got {host!r}"


def _checked(cell: NotebookNode) -> Iterator[str]:
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stdout":
            continue
        if output.output_type != "execute_result" or set(output.data) != {"text/plain"}:
            yield f"is tagged {CHECKED} and may only print text, got {output.output_type}"
    text = _text(cell)
    if not text.strip():
        yield f"is tagged {CHECKED} but its output is missing, so that nbval would compare nothing"
    if len(text) > MAX_CHECKED:
        yield f"is tagged {CHECKED} and must stay short ({MAX_CHECKED:,} characters), got {len(text):,}"


def _metadata(notebook: NotebookNode) -> Iterator[str]:
    for key in ("widgets", "papermill"):
        if key in notebook.metadata:
            yield f"metadata must not hold {key!r}; use --strip"
    if any("injected-parameters" in _tags(cell) for cell in notebook.cells):
        yield "must not hold a cell that papermill injected; use --strip"


def strip(executed: NotebookNode) -> NotebookNode:
    """The committed form of an executed notebook; the given one is not changed.

    Raises:
        ValueError: when it was executed with parameters other than ``OUT_DIR``, so not at its defaults, or when a
            checked cell shows what nbval cannot compare.
    """
    notebook = nbformat.from_dict(executed)
    cells = []
    for cell in notebook.cells:
        tags = _tags(cell)
        if "injected-parameters" in tags:
            targets = [t for s in ast.parse(cell.source).body if isinstance(s, ast.Assign) for t in s.targets]
            other = [name for name in map(ast.unparse, targets) if name != "OUT_DIR"]
            if other:
                raise ValueError(f"must be executed at its defaults, got values for {', '.join(other)}; run it again")
        elif "papermill-error-cell-tag" not in tags:
            cells.append(cell)
    count = 0
    for cell in cells:
        cell.metadata = NotebookNode({"tags": _tags(cell)} if _tags(cell) else {})
        if cell.cell_type != "code":
            continue
        if cell.execution_count is not None:
            count += 1
            cell.execution_count = count
        kept = [_kept(output, _tags(cell), count) for output in cell.outputs if output.get("name") != "stderr"]
        if CHECKED in _tags(cell) and None in kept:
            shown = sorted({kind for output in cell.outputs for kind in output.get("data", {})} - {"text/plain"})
            raise ValueError(
                f"cell [{count}] is tagged {CHECKED} and may only print text, got {', '.join(shown) or 'an error'}; "
                "print what is compared, and show tables and pictures in another cell (nbval misses what is stripped)"
            )
        cell.outputs = [output for output in kept if output is not None]
    notebook.cells = cells
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    return notebook


def _kept(output: NotebookNode, tags: list[str], count: int) -> NotebookNode | None:
    """An output as it is committed, or None."""
    data = output.get("data", {})
    if CHECKED in tags and output.output_type == "stream" and output.name == "stdout":
        return output
    if CHECKED in tags and output.output_type == "execute_result" and set(data) == {"text/plain"}:
        return nbformat.v4.new_output("execute_result", data=data, execution_count=count)
    if PICTURE in tags and "image/png" in data:
        return nbformat.v4.new_output("display_data", data={"image/png": data["image/png"]})
    return None


def write_stripped(executed: Path, target: Path) -> None:
    """Write the committed form of ``executed`` to ``target``.

    Raises:
        ValueError: when it was not executed at its defaults, or ``target`` has been edited since.
    """
    notebook = strip(nbformat.read(executed, as_version=4))
    if target.exists():
        before = nbformat.read(target, as_version=4)
        if [(c.cell_type, c.source) for c in before.cells] != [(c.cell_type, c.source) for c in notebook.cells]:
            raise ValueError(f"{target} has been edited since {executed} was run; run `clipgs notebooks run` first")
    write_text(target, nbformat.writes(notebook) + "\n")


def _tags(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def _text(cell: NotebookNode) -> str:
    parts = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join(parts)


def _tree(cell: NotebookNode) -> ast.AST:
    """The cell as Python; a cell with magics or a syntax error, which are told elsewhere, counts as empty."""
    try:
        return ast.parse(cell.source)
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def _calls(cell: NotebookNode, name: str) -> list[ast.Call]:
    """Calls of ``name(...)`` or ``anything.name(...)``."""
    calls = [node for node in ast.walk(_tree(cell)) if isinstance(node, ast.Call)]
    return [call for call in calls if (getattr(call.func, "attr", None) or getattr(call.func, "id", None)) == name]


def main(arguments: list[str] | None = None) -> int:
    """Check or strip; 0 when all is well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--strip", action="store_true", help="write the committed form of executed notebooks")
    parser.add_argument("--folder", type=Path, default=ROOT / "notebooks", help="where committed notebooks lie")
    given: Any = parser.parse_args(arguments)
    if given.strip:
        for executed in given.notebooks:
            try:
                write_stripped(executed, given.folder / executed.name)
            except ValueError as error:
                print(f"{executed}: {error}", file=sys.stderr)
                return 1
            print(f"{given.folder / executed.name} written")
        return 0
    paths = given.notebooks or sorted(given.folder.glob("*.ipynb"))
    failed = 0
    for path in paths:
        found = problems(path)
        failed += bool(found)
        for sentence in found:
            print(f"{path}: {sentence}")
    print(f"{len(paths)} notebooks checked, {failed} depart from the form")
    return 1 if failed or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
