"""`.ci/check_notebooks.py`: the good pass, each departure is told, executed notebooks get their committed form."""

from __future__ import annotations

import base64
import importlib.util
import io
import socket
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NAME = "03_sample"
HEAD = """# A title

**Question** Does the form hold?
**You will see** a number and a picture.
**Inputs** none. **Outputs** metrics.json. **Runtime** 3 s on 2 cores."""
PARAMETERS = """SEED: int = 0
DEVICE: str = "auto"
DATA_DIR: str = "../data"
OUT_DIR: str = "../build/03_sample"
TEACHER: str | None = None"""
START = 'from clipgs_lib import runtime\n\nruntime.start("03_sample", globals())'
TABLE = {"text/plain": "a\n1", "text/html": "<table>"}  # nbval compares both, and one of them would be stripped
CLOSING = "## What we found\n\nIt holds.\n\n**Caveats** none. **Next** 04."


@pytest.fixture(scope="module")
def check():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("check_notebooks", ROOT / ".ci" / "check_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def png() -> str:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 99, 200)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def good() -> nbformat.NotebookNode:
    """A notebook that keeps the whole form."""
    cells = [
        new_markdown_cell(HEAD),
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        new_code_cell(START),
        new_markdown_cell("A claim."),
        new_code_cell(
            "print(2 + 2)",
            metadata={"tags": ["nbval-check-output"]},
            outputs=[new_output("stream", name="stdout", text="4\n")],
        ),
        new_code_cell(
            "picture",
            metadata={"tags": ["keep-png"]},
            outputs=[new_output("display_data", data={"image/png": png()})],
        ),
        new_markdown_cell(CLOSING),
        new_code_cell('runtime.record({"four": 4})'),
    ]
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
    return new_notebook(cells=cells)


def told(check, tmp_path, notebook) -> list[str]:
    path = tmp_path / f"{NAME}.ipynb"
    nbformat.write(notebook, path)
    return check.problems(path)


def test_a_good_notebook_passes(check, tmp_path):
    assert told(check, tmp_path, good()) == []


def set_source(index, source):
    def change(notebook):
        notebook.cells[index].source = source

    return change


def add_output(index, *outputs):
    def change(notebook):
        notebook.cells[index].outputs = [*notebook.cells[index].outputs, *outputs]

    return change


def set_tags(index, *tags):
    def change(notebook):
        notebook.cells[index].metadata["tags"] = list(tags)

    return change


def text(words):
    return new_output("stream", name="stdout", text=words)


LONG_FUNCTION = "def f():\n    a = 1\n    b = 2\n    c = 3\n    d = 4\n    return a + b + c + d"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n: n.cells.pop(0), "cell 1 must be markdown with title"),
        (set_source(0, HEAD.replace("# A title", "A title")), "must say a title"),
        (set_source(0, HEAD.replace("**Question**", "Question")), "must say **Question**"),
        (set_source(0, HEAD.replace("You will see", "There is")), "must say what you will see"),
        (set_source(0, HEAD.replace("**Inputs**", "")), "must say its inputs"),
        (set_source(0, HEAD.replace("**Outputs**", "")), "must say its outputs"),
        (set_source(0, HEAD.replace("3 s on", "short on")), "must say the measured runtime"),
        (set_tags(1), 'cell 2 must be code tagged "parameters"'),
        (set_tags(4, "parameters", "nbval-check-output"), 'only one cell may be tagged "parameters"'),
        (set_source(1, PARAMETERS.replace("SEED: int", "SEED")), "must annotate every parameter, got SEED = 0"),
        (set_source(1, PARAMETERS + "\nviews: int = 3"), "UPPER_CASE, got views"),
        (set_source(1, PARAMETERS.replace("TEACHER", "MODEL")), "must declare TEACHER"),
        (set_source(1, PARAMETERS + "\nX: int = len('a')"), "must be a literal"),
        (set_source(2, "import os"), "must import and call runtime.start"),
        (set_source(2, START.replace("03_sample", "04_other")), "must be given the notebook's name"),
        (set_source(4, "import os\nprint(2 + 2)"), "cell 5 must not import"),
        (set_source(4, "class A:\n    x = 1"), "must not define classes, got A"),
        (set_source(4, LONG_FUNCTION), "functions over 5 lines, got f with 6"),
        (set_source(4, "\n".join(f"x{i} = {i}" for i in range(16))), "at most 15 lines of code, got 16"),
        (set_source(4, "%timeit 1"), "without % magics"),
        (set_source(4, ""), "cell 5 must not be empty"),
        (set_source(7, "print('bye')"), "the last code cell must call runtime.record"),
        (set_source(6, "## The end"), '"caveat" is missing'),
        (lambda n: n.cells[4].update(execution_count=9), "executed once from top to bottom (counts 1 to 5), got"),
        (lambda n: n.cells[4].update(execution_count=None), "executed once from top to bottom"),
        (add_output(2, new_output("error", ename="E", evalue="", traceback=[])), "cell 3 must not end in an error"),
        (add_output(2, text("hello")), "cell 3 must have no outputs"),
        (lambda n: n.cells[4].update(outputs=[]), "its output is missing"),
        (add_output(4, text("x" * 5000)), "must stay short"),
        (add_output(4, new_output("display_data", data={"text/html": "<b>"})), "may only print text, got display_data"),
        (set_tags(4), "at least one cell must be tagged nbval-check-output"),
        (add_output(5, new_output("display_data", data={"image/png": png()})), "must have exactly one output, a PNG"),
        (lambda n: n.cells[5].update(outputs=[]), "must have exactly one output, a PNG, got []"),
        (
            lambda n: n.cells.insert(6, nbformat.from_dict(n.cells[5] | {"id": "twin"})),
            "at most one cell may be tagged keep-png",
        ),
        (add_output(4, text("read /home/ann/a.ply")), "must not hold absolute paths, got '/home/ann/a.ply'"),
        (add_output(4, text("in C:\\data\\x")), "must not hold absolute paths"),
        (lambda n: n.metadata.update(widgets={}), "metadata must not hold 'widgets'"),
        (lambda n: n.metadata.update(papermill={}), "metadata must not hold 'papermill'"),
        (set_tags(7, "injected-parameters"), "must not hold a cell that papermill injected"),
        (add_output(5, new_output("display_data", data={"image/png": "A" * 210_000})), "at most 200,000 bytes"),
    ],
)
def test_each_departure_is_told(check, tmp_path, change, words):
    notebook = good()
    change(notebook)
    found = told(check, tmp_path, notebook)
    assert any(words in sentence for sentence in found), found


def test_the_machine_is_not_named(check, tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "ann-laptop")
    notebook = good()
    add_output(4, text("ran on ann-laptop"))(notebook)
    assert any("must not name the machine" in sentence for sentence in told(check, tmp_path, notebook))


@pytest.mark.parametrize(
    "innocent", ["12/34/56", "ratio 3/4", "../data/a.ply", "m/s²", "a / b / c", "splats/ply/x.ply"]
)
def test_relative_paths_and_fractions_are_no_absolute_paths(check, innocent):
    assert check.ABSOLUTE.search(innocent) is None


def test_a_broken_file_is_told(check, tmp_path):
    path = tmp_path / f"{NAME}.ipynb"
    path.write_text("{}")
    assert any("must be a valid notebook" in sentence for sentence in check.problems(path))


def executed() -> nbformat.NotebookNode:
    """`good` as the runner leaves it: an injected cell, papermill's and widgets' metadata, outputs everywhere."""
    notebook = good()
    injected = new_code_cell(
        '# Parameters\nOUT_DIR = "/somewhere/out/03_sample"', metadata={"tags": ["injected-parameters"]}
    )
    notebook.cells.insert(2, injected)
    for count, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
        cell.metadata["papermill"] = {"duration": 1.0}
    notebook.cells[3].outputs = [text("environment line")]
    notebook.cells[5].outputs.append(new_output("stream", name="stderr", text="a warning"))
    notebook.cells[6].outputs[0].data["text/html"] = "<b>"
    notebook.metadata.update(
        papermill={"input_path": "/x/y"}, widgets={"a": 1}, language_info={"name": "python", "version": "3.11"}
    )
    return notebook


def test_strip_makes_the_committed_form(check, tmp_path):
    source = tmp_path / "build" / f"{NAME}.ipynb"
    source.parent.mkdir()
    nbformat.write(executed(), source)
    assert len(check.problems(source)) > 3
    assert check.main(["--strip", str(source), "--folder", str(tmp_path)]) == 0
    target = tmp_path / f"{NAME}.ipynb"
    assert check.problems(target) == []
    stripped = nbformat.read(target, as_version=4)
    assert [c.source for c in stripped.cells] == [c.source for c in good().cells]
    assert [c.execution_count for c in stripped.cells if c.cell_type == "code"] == [1, 2, 3, 4, 5]
    assert "/somewhere" not in target.read_text() and "3.11" not in target.read_text()
    before = target.read_bytes()
    assert check.main(["--strip", str(source), "--folder", str(tmp_path)]) == 0
    assert target.read_bytes() == before, "the same again"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_source(2, "OUT_DIR = 'x'\nSEED = 4"), "must be executed at its defaults, got values for SEED"),
        (add_output(5, new_output("display_data", data={"image/png": png()})), "may only print text, got image/png"),
        (
            add_output(5, new_output("execute_result", data=TABLE, execution_count=5)),
            "may only print text, got text/html",
        ),
    ],
)
def test_strip_refuses(check, tmp_path, capsys, change, words):
    notebook = executed()
    change(notebook)
    source = tmp_path / "build" / f"{NAME}.ipynb"
    source.parent.mkdir()
    nbformat.write(notebook, source)
    assert check.main(["--strip", str(source), "--folder", str(tmp_path)]) == 1
    assert words in capsys.readouterr().err and not (tmp_path / f"{NAME}.ipynb").exists()


def test_strip_does_not_overwrite_later_edits(check, tmp_path, capsys):
    source = tmp_path / "build" / f"{NAME}.ipynb"
    source.parent.mkdir()
    nbformat.write(executed(), source)
    edited = good()
    edited.cells[3].source = "A better claim."
    nbformat.write(edited, tmp_path / f"{NAME}.ipynb")
    assert check.main(["--strip", str(source), "--folder", str(tmp_path)]) == 1
    assert "has been edited since" in capsys.readouterr().err
    assert nbformat.read(tmp_path / f"{NAME}.ipynb", as_version=4).cells[3].source == "A better claim."


def test_the_command_counts_and_fails(check, tmp_path, capsys):
    nbformat.write(good(), tmp_path / f"{NAME}.ipynb")
    assert check.main(["--folder", str(tmp_path)]) == 0
    assert "1 notebooks checked, 0 depart" in capsys.readouterr().out
    bad = good()
    bad.cells[2].source = "x = 1"
    nbformat.write(bad, tmp_path / "04_bad.ipynb")
    assert check.main(["--folder", str(tmp_path)]) == 1
    assert "04_bad.ipynb: the second code cell must import" in capsys.readouterr().out
    assert check.main(["--folder", str(tmp_path / "empty")]) == 1, "no notebook at all is no success"
