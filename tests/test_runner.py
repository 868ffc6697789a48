"""The notebook runner, on small notebooks made here."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient.output_widget import OutputWidget
from papermill.engines import NotebookExecutionManager
from PIL import Image

from clipgs_lib import runner
from clipgs_lib.runner import NotebookError, Options, ParameterError, schedule, state, worker
from clipgs_lib.runner.notebooks import declared_parameters
from clipgs_lib.runner.state import input_key, is_current, shared_key

PARAMETERS = (
    'SEED: int = 0\nDATA_DIR: str = "."\nOUT_DIR: str = "out"\nNAMES: list[str] = ["a"]\nNOTE: str | None = None'
)
# What runtime.record writes, without importing torch in every kernel of this file.
RECORD = """
import json, os, time
os.makedirs(OUT_DIR, exist_ok=True)
document = dict(notebook="{name}", recorded=time.time(), metrics=dict(seed=SEED, note=NOTE), findings=["It ran."])
json.dump(document, open(os.path.join(OUT_DIR, "metrics.json"), "w"))
"""


@pytest.fixture(scope="module", autouse=True)
def still_library():
    """An edit of the library while the tests run must not look like a change to the runner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "shared_key", lambda: "the library of this test")
        yield


def write_notebook(folder: Path, name: str, *cells: str, head: str = "# A title\n\n**Question** Does it run?") -> Path:
    """A notebook with head, parameters and the given code cells; ``RECORD`` is filled in with its name."""
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    parameters = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    code = [nbformat.v4.new_code_cell(cell.replace("{name}", name)) for cell in cells]
    notebook.cells = [nbformat.v4.new_markdown_cell(head), parameters, *code]
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


class Watching(runner.Console):
    """A console that is quick to mention a silent notebook, and says at each start whether the index is there."""

    def __init__(self, stream, index):
        super().__init__(stream, quiet=1.0)
        self.index = index

    def started(self, name, cells):
        super().started(name, cells)
        self.say(f"{name}: index {self.index.is_file()}")


def run(folder: Path, out: Path, *words: tuple[str, str], names: tuple[str, ...] = (), **options):
    """Find, resolve and run as the command does; returns the report and all that was printed."""
    stream = io.StringIO()
    console = Watching(stream, out / "index.html")
    notebooks = runner.find_notebooks(folder, names)
    values = runner.resolve_parameters({n.name: n.parameters for n in notebooks}, words)
    report = runner.run_notebooks(notebooks, values, Options(out, **options), console)
    console.table(report.outcomes, report.skipped)
    return report, stream.getvalue()


# ---- all endings at once -------------------------------------------------------------------------------------

ENDINGS = {
    "01_good": ["print('SEED is', SEED)", "import os\nprint(os.environ.get('OMP_NUM_THREADS'))\n" + RECORD],
    "02_raises": ["x = 1\ny = x / 0", RECORD],
    "03_silent": ["x = 1"],
    "04_leaves": ["import sys\nsys.exit(0)", RECORD],
    "05_dies": ["import os\nos._exit(0)", RECORD],
    "06_hangs": ["import time\ntime.sleep(600)", RECORD],
    "07_misnamed": [RECORD.replace("{name}", "someone_else")],
    "08_stale": ["x = 1"],
    "09_broken": ["import os, pathlib\np = pathlib.Path(OUT_DIR)\np.mkdir()\n(p / 'metrics.json').write_text('{')"],
    "10_syntax": ["def f(:\n    pass"],
}


@pytest.fixture(scope="module")
def endings(tmp_path_factory):
    """Every way a notebook can end, in one run with two at a time."""
    root = tmp_path_factory.mktemp("endings")
    for name, cells in ENDINGS.items():
        write_notebook(root / "notebooks", name, *cells)
    out = root / "out with spaces"
    stale = out / "08_stale" / "metrics.json"
    stale.parent.mkdir(parents=True)
    earlier = {"notebook": "08_stale", "recorded": time.time() - 5, "metrics": {"a": 1}, "findings": []}
    stale.write_text(json.dumps(earlier))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        report, said = run(root / "notebooks", out, ("SEED", "7"), ("NOTE", "12e3456"), jobs=2, timeout=8)
    runner.write_index(runner.find_notebooks(root / "notebooks"), out)
    return report, said, out, root / "notebooks"


def outcome(report, name):
    return next(o for o in report.outcomes if o.name == name)


def test_notebooks_that_run_together_share_the_cores(endings):
    executed = nbformat.read(endings[2] / "01_good.ipynb", as_version=4)
    assert executed.cells[4].outputs[0].text == f"{max(1, os.cpu_count() // 2)}\n"


def test_failures_do_not_stop_the_others(endings):
    report, _, _, _ = endings
    assert [o.name for o in report.outcomes] == list(ENDINGS)
    assert [o.name for o in report.outcomes if o.status == "passed"] == ["01_good"]
    assert not report.interrupted


def test_success_leaves_notebook_page_and_metrics(endings):
    report, _, out, _ = endings
    good = outcome(report, "01_good")
    assert good.metrics == {"seed": 7, "note": "12e3456"} and good.findings == ["It ran."]
    executed = nbformat.read(out / "01_good.ipynb", as_version=4)
    assert executed.cells[3].outputs[0].text == "SEED is 7\n"
    assert "SEED is 7" in (out / "01_good.html").read_text()
    assert not (out / "01_good.failed.ipynb").exists() and not list(out.glob(".*.running.ipynb"))


@pytest.mark.parametrize(
    ("name", "place", "error"),
    [
        ("02_raises", "cell 3, line 2: y = x / 0", "ZeroDivisionError: division by zero"),
        ("03_silent", "after the last cell", "no metrics.json in OUT_DIR"),
        ("04_leaves", "after the last cell", "did the notebook stop before it (sys.exit)?"),
        ("05_dies", "cell 3: import os", "the kernel died"),
        ("06_hangs", "cell 3: import time", "cell took longer than 8 s"),
        ("07_misnamed", "after the last cell", "must name the notebook '07_misnamed', got 'someone_else'"),
        ("08_stale", "after the last cell", "is from an earlier run"),
        ("09_broken", "after the last cell", "must be written by runtime.record"),
        ("10_syntax", "cell 3, line 1: def f(:", "SyntaxError"),
    ],
)
def test_failures_say_where_and_why(endings, name, place, error):
    report, said, out, _ = endings
    failure = outcome(report, name)
    assert failure.status == "failed" and failure.place == place and error in failure.error
    assert Path(failure.log).is_file() and failure.log in said and failure.place in said
    assert (out / f"{name}.failed.ipynb").is_file() and not (out / f"{name}.ipynb").exists()


def test_the_log_has_the_traceback_and_plain_progress_has_no_control_codes(endings):
    report, said, _, _ = endings
    assert "ZeroDivisionError" in Path(outcome(report, "02_raises").log).read_text()
    assert "\x1b" not in said and "\r" not in said
    assert "02_raises                failed in" in said


def test_cells_are_counted_alike_everywhere(endings):
    _, said, _, _ = endings
    assert "01_good                  started, 4 cells" in said
    assert "/5" not in said, "papermill's own cell does not count"


def test_a_long_cell_beats_in_the_log(endings):
    _, said, _, _ = endings
    assert len(re.findall(r"06_hangs +cell 3/4, \d+ s\n", said)) >= 3


def test_the_index_is_there_from_the_first_end_on(endings):
    _, said, _, _ = endings
    assert re.findall(r": index (\w+)\n", said) == ["False"] * 2 + ["True"] * (len(ENDINGS) - 2)


def test_index_lists_all_and_escapes(endings):
    _, _, out, folder = endings
    page = (out / "index.html").read_text()
    assert "1 passed, 9 failed" in page and page.count("<article>") == len(ENDINGS)
    assert 'href="01_good.html"' in page and 'href="02_raises.failed.ipynb"' in page and "It ran." in page
    assert "http://" not in page and "https://" not in page
    write_notebook(folder, "11_<i>", "x = 1", head="# <script>alert(1)</script>\n\n**Question** a < b & c?")
    try:
        page = runner.write_index(runner.find_notebooks(folder), out).read_text()
    finally:
        (folder / "11_<i>.ipynb").unlink()
    assert "<script>" not in page and "&lt;script&gt;alert(1)" in page and "a &lt; b &amp; c?" in page
    assert "not run yet" in page


# ---- skipping ------------------------------------------------------------------------------------------------


def test_unchanged_is_skipped_and_forced_is_not(endings):
    _, _, out, folder = endings
    again = {"names": ("01_good",)}
    words = (("SEED", "7"), ("NOTE", "12e3456"))
    report, said = run(folder, out, *words, **again)
    assert report.skipped == ("01_good",) and report.outcomes == () and "unchanged" in said
    before = (out / "01_good.ipynb").stat().st_mtime_ns
    report, _ = run(folder, out, *words, force=True, **again)
    assert report.skipped == () and (out / "01_good.ipynb").stat().st_mtime_ns > before


def test_what_counts_as_a_change(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.bin").write_bytes(b"1")
    path = write_notebook(tmp_path / "notebooks", "01_good", "x = 1", RECORD)
    given = {"DATA_DIR": str(data)}

    def key(parameters=given, shared="s"):
        return input_key(runner.read_notebook(path), parameters, shared)

    first = key()
    assert key() == first
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="x")]
    notebook.cells[2].execution_count = 3
    nbformat.write(notebook, path)
    assert key() == first, "outputs do not count"
    assert key(given | {"SEED": 1}) != first
    assert key(shared="other library") != first
    (data / "b.bin").write_bytes(b"")
    with_file = key()
    assert with_file != first
    os.utime(data / "a.bin", (1, 1))
    assert key() != with_file
    notebook.cells[1].source += "\nSPLATS: str = ''  # a file"
    nbformat.write(notebook, path)
    with_file = key(given | {"SPLATS": str(tmp_path / "s.ply")})
    (tmp_path / "s.ply").write_bytes(b"1")
    assert key(given | {"SPLATS": str(tmp_path / "s.ply")}) != with_file, "a file that a parameter names"
    notebook.cells[2].source = "x = 2"
    nbformat.write(notebook, path)
    assert key() not in (first, with_file)


def test_the_shared_key_follows_library_and_real_data(monkeypatch, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(state, "_PACKAGE", package)
    monkeypatch.setenv("CLIPGS_REAL_DATA", "")
    empty = shared_key()
    (package / "a.py").write_text("x = 1")
    without = shared_key()
    assert without != empty
    (package / "a.pyc").write_text("x = 1")
    os.utime(package / "a.py", (1, 1))
    assert shared_key() == without, "compiled files and times do not count"
    monkeypatch.setenv("CLIPGS_REAL_DATA", str(tmp_path))
    assert shared_key() != without


def test_missing_results_are_made_again(endings):
    report, _, out, _ = endings
    good = runner.load_outcome(out, "01_good")
    assert is_current(out, "01_good", good.key, out / "01_good")
    assert not is_current(out, "01_good", "another key", out / "01_good")
    assert not is_current(out, "01_good", good.key, out / "elsewhere")
    assert not is_current(out, "02_raises", outcome(report, "02_raises").key, out / "02_raises")


def test_a_failure_keeps_the_previous_success_and_a_success_removes_the_failure(tmp_path):
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    write_notebook(folder, "01_x", "if SEED: raise RuntimeError('no')", RECORD)
    report, _ = run(folder, out)
    assert not report.failed
    good, page = (out / "01_x.ipynb").read_bytes(), (out / "01_x.html").read_bytes()
    report, _ = run(folder, out, ("SEED", "1"))
    assert outcome(report, "01_x").error == "RuntimeError: no"
    assert (out / "01_x.ipynb").read_bytes() == good and (out / "01_x.html").read_bytes() == page
    assert (out / "01_x.failed.ipynb").is_file()
    report, _ = run(folder, out)
    assert not report.failed and not report.skipped, "a failed state is not current"
    assert not (out / "01_x.failed.ipynb").exists()


def test_works_with_the_real_runtime(tmp_path):
    begin = 'from clipgs_lib import runtime\nDEVICE, TEACHER = "cpu", "none"\nrun = runtime.start("01_x", globals())'
    write_notebook(
        tmp_path / "notebooks", "01_x", begin, 'runtime.record({"count": len(NAMES)}, findings="Two names.")'
    )
    report, _ = run(tmp_path / "notebooks", tmp_path / "out", ("NAMES", '["a", "b"]'))
    assert not report.failed, report.outcomes
    assert outcome(report, "01_x").metrics == {"count": 2}
    document = json.loads((tmp_path / "out" / "01_x" / "metrics.json").read_text())
    assert document["parameters"]["NAMES"] == ["a", "b"] and document["versions"]["torch"]


@pytest.mark.skipif(os.name != "posix", reason="sockets in the file system are POSIX")
def test_output_widgets_run_and_leave_no_state(tmp_path):
    """nbclient looks each of them up in the state that it does not store: a KeyError outside the notebook."""
    widget = "from ipywidgets import interact\ninteract(lambda x: print('x is', x), x=3);"
    write_notebook(tmp_path / "notebooks", "01_widget", widget, RECORD)
    report, _ = run(tmp_path / "notebooks", tmp_path / "out")
    assert [(o.status, o.error) for o in report.outcomes] == [("passed", "")]
    executed = nbformat.read(tmp_path / "out" / "01_widget.ipynb", as_version=4)
    assert "widgets" not in executed.metadata


def test_a_reply_that_comes_while_an_output_widget_is_answered_is_heard(monkeypatch):
    answer = OutputWidget.sync_state
    monkeypatch.setattr(OutputWidget, "sync_state", lambda widget: (time.sleep(1), answer(widget)))
    code = "from ipywidgets import interact\ninteract(lambda x: print('x is', x), x=3);"
    cell = nbformat.v4.new_code_cell(code, metadata={"papermill": {}})
    manager = NotebookExecutionManager(nbformat.v4.new_notebook(cells=[cell]))
    began = time.monotonic()
    worker._Client(manager, kernel_name="python3", timeout=20, store_widget_state=False).execute()
    assert time.monotonic() - began < 18  # nbclient's own widget: the whole time limit


def test_kernels_take_no_ports_that_others_could_take_too(tmp_path):
    asks = "import json\nfrom ipykernel.connect import get_connection_file\n"
    asks += "NOTE = json.load(open(get_connection_file()))['transport']"
    write_notebook(tmp_path / "n", "01_asks", asks, RECORD)
    report, _ = run(tmp_path / "n", tmp_path / "out")
    assert outcome(report, "01_asks").metrics["note"] == "ipc"
    assert not list((tmp_path / "n").glob("*-ipc*"))


class Terminal(io.StringIO):
    """Text that claims to be a terminal."""

    def isatty(self):
        return True


def test_a_terminal_gets_a_live_bar_for_each(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    with runner.Console(stream) as console:
        console.started("01_a", 4)
        console.started("02_b", 9)
        console.progressed("01_a", 2, 4)
        console.say("between")
        live = stream.getvalue().rpartition("between")[2]
        assert "01_a" in live and "2/4" in live and "02_b" in live and "0/9" in live
        console.ended(runner.Outcome("01_a", "passed", 1.5, 0.0, "key", {}))
        assert "\x1b[32mpassed\x1b[0m in 1.5 s\n" in stream.getvalue()
        live = stream.getvalue().rpartition("in 1.5 s")[2]
        assert "01_a" not in live and "02_b" in live


def test_without_a_terminal_long_runs_are_mentioned_now_and_then():
    stream = io.StringIO()
    console = runner.Console(stream, quiet=0.0)
    console.started("01_a", 4)
    console.progressed("01_a", 2, 4)
    assert "cell 2/4, 0 s" in stream.getvalue()


def test_what_is_expected_is_said_first_and_a_long_cell_is_heard_of():
    stream = io.StringIO()
    console = runner.Console(stream, quiet=0.0)
    console.planned({"01_a": 40.0, "02_b": 200.0, "03_c": 0.0}, jobs=1)
    plan = stream.getvalue()
    assert "01_a                     will take about 40 s" in plan and "03_c                     has never" in plan
    assert "3 notebooks, about 4 min in all" in plan
    console.started("01_a", 4)
    console.heartbeat()
    console.heartbeat()
    assert stream.getvalue().count("cell 0/4, 0 s, about 40 s left") == 2


def test_estimates_come_from_the_last_run_or_the_first_cell(tmp_path):
    head = "# T\n\n**Question.** Is it?\n\n**Runtime.** About 20 s, and 40 s the first time.\n\nMore."
    for name in ("01_a", "02_b"):
        write_notebook(tmp_path / "n", name, head=head)
    write_notebook(tmp_path / "n", "03_c")
    notebooks = runner.find_notebooks(tmp_path / "n")
    assert state.expected_seconds(notebooks, tmp_path) == {"01_a": 20.0, "02_b": 20.0, "03_c": 0.0}
    state.save_outcome(tmp_path, runner.Outcome("01_a", "passed", 60.0, 0.0, "key", {}))
    assert state.expected_seconds(notebooks, tmp_path) == {"01_a": 60.0, "02_b": 60.0, "03_c": 0.0}
    state.save_outcome(tmp_path, runner.Outcome("01_a", "failed", 1.0, 0.0, "key", {}))
    assert state.expected_seconds(notebooks, tmp_path)["01_a"] == 20.0, "a failure says nothing"


def test_the_index_is_a_front_page(tmp_path):
    out = tmp_path / "out"
    head = "# 1 *A* `title`\n\n**Question.** Is the *teacher* **good** at $a_1$?"
    write_notebook(tmp_path / "n", "01_a", RECORD, head=head)
    notebooks = runner.find_notebooks(tmp_path / "n")
    page = runner.write_index(notebooks, out).read_text()
    assert "Start here" not in page and "Is the <em>teacher</em> <strong>good</strong> at <math" in page
    (out / "01_a.html").write_text("x")
    metrics, labels = {"psnr": 31.25, "top1": 0.489, "n": 1234, "x": 1}, {"top1": "Top-1, of 10, share"}
    labels |= {"psnr": "PSNR, dB", "n": "Objects,"}
    wide, fitting = (
        nbformat.v4.new_output("display_data", data={"image/png": png(size)}) for size in ((99, 9), (40, 24))
    )
    executed = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[wide, fitting])])
    nbformat.write(executed, out / "01_a.ipynb")
    passed = runner.Outcome("01_a", "passed", 1.5, 0.0, "key", {}, metrics, ["It *did*."], labels)
    state.save_outcome(out, passed)
    page = runner.write_index(notebooks, out).read_text()
    assert 'Start here: <a href="01_a.html">1 <em>A</em> <code>title</code></a>' in page
    shown = [
        "<dt>Top-1, of 10</dt><dd>48.9\xa0%</dd>",
        "<dt>PSNR</dt><dd>31.2\xa0dB</dd>",
        "<dt>Objects</dt><dd>1,234</dd>",
    ]
    assert "".join(shown) in page and "<dt>x" not in page and "It <em>did</em>." in page
    assert png((40, 24)) in page and png((99, 9)) not in page, "the picture that fits the card"


def png(size: tuple[int, int]) -> str:
    """A white picture in base64."""
    stream = io.BytesIO()
    Image.new("RGB", size, "white").save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


# ---- nothing is left behind ----------------------------------------------------------------------------------

SLEEPER = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(DATA_DIR, "pids").write_text(f"{os.getpid()} {child.pid} {os.getppid()}")
time.sleep(600)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_interrupted_runs_leave_no_process(tmp_path, number, code):
    write_notebook(tmp_path / "notebooks", "01_sleeps", SLEEPER)
    write_notebook(tmp_path / "notebooks", "02_never", RECORD)
    command = [
        sys.executable,
        "-m",
        "clipgs_lib",
        "notebooks",
        "run",
        "--notebooks-dir",
        "notebooks",
        "--out",
        "out",
    ]
    process = subprocess.Popen(
        [*command, "-p", "DATA_DIR", "."],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells let background jobs ignore it
    )
    pids = tmp_path / "pids"
    deadline = time.monotonic() + 300
    while not (pids.exists() and len(pids.read_text().split()) == 3):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.1)
    members = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
    process.send_signal(number)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == code, said
    _, alive = psutil.wait_procs(members, timeout=60)
    assert alive == []
    if number != signal.SIGKILL:
        assert "interrupted" in said and not (tmp_path / "out" / "02_never").exists()
        assert (tmp_path / "out" / "01_sleeps.failed.ipynb").is_file() and (tmp_path / "out" / "index.html").is_file()


# ---- parameters ----------------------------------------------------------------------------------------------

DECLARED = {
    "01_a": declared_parameters('SEED: int = 0\nRATE: float = 0.1\nID: str = "a=b"  # c\nFLAG: bool = False'),
    "02_b": declared_parameters(
        "SEED: int = 0\nNOTE: str | None = None\nSIZES: list[int] = [1]\n"
        'MAP: dict[str, float] = {}\nDATA_DIR: str = "../data"'
    ),
}


def test_defaults_and_types_come_from_the_cell():
    assert {name: p.type for name, p in DECLARED["02_b"].items()} == {
        "SEED": "int",
        "NOTE": "str | None",
        "SIZES": "list[int]",
        "MAP": "dict[str, float]",
        "DATA_DIR": "str",
    }
    assert DECLARED["01_a"]["ID"].default == "a=b", "papermill's own inspection loses this line"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (("ID", "12e3456"), "12e3456"),
        (("ID", ""), ""),
        (("SEED", "-3"), -3),
        (("RATE", "1e-3"), 0.001),
        (("RATE", "2"), 2.0),
        (("FLAG", "true"), True),
        (("FLAG", "no"), False),
        (("NOTE", "none"), None),
        (("NOTE", "7"), "7"),
        (("SIZES", "[3, 4]"), [3, 4]),
        (("MAP", '{"a": 1}'), {"a": 1.0}),
    ],
)
def test_words_are_read_as_declared(word, expected):
    values = runner.resolve_parameters(DECLARED, [word])
    [got] = [v[word[0]] for v in values.values() if word[0] in v and word[0] != "SEED"] or [values["01_a"]["SEED"]]
    assert got == expected and type(got) is type(expected)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (("SEED", "1.0"), "SEED must be int, got '1.0'"),
        (("SEED", "1e3"), "SEED must be int"),
        (("RATE", "inf"), "it must be finite"),
        (("RATE", "fast"), "RATE must be float, got 'fast'"),
        (("FLAG", "maybe"), "write true or false"),
        (("SIZES", "3"), r"SIZES must be list\[int\], got 3"),
        (("SIZES", '["a"]'), r"SIZES must be list\[int\], got 'a'"),
        (("SIZES", "[1"), "write JSON"),
        (("MAP", "[1]"), r"MAP must be dict\[str, float\], got \[1\]"),
        (("SEAD", "1"), "SEAD must be declared .* did you mean SEED?"),
        (("seed", "1"), "did you mean SEED?"),
        (("QQQQ", "1"), "declared are DATA_DIR, FLAG"),
    ],
)
def test_wrong_words_are_refused(word, message):
    with pytest.raises(ParameterError, match=message):
        runner.resolve_parameters(DECLARED, [word])


def test_all_problems_are_told_at_once():
    with pytest.raises(ParameterError) as caught:
        runner.resolve_parameters(DECLARED, [("SEED", "x"), ("RATE", "y"), ("NOPE", "1")])
    assert len(str(caught.value).splitlines()) == 4  # SEED in both notebooks, RATE in one, NOPE


def test_files_have_flat_names_and_sections(tmp_path):
    path = tmp_path / "full.yaml"
    path.write_text("SEED: 5\n02_b:\n  SEED: 6\n  NOTE: hi\n  MAP: {a: 1}\n09_other:\n  WHAT: 1\n")
    document = runner.read_parameters_file(path)
    values = runner.resolve_parameters(DECLARED, [("RATE", "0.5")], document, others=["09_other"])
    assert values == {"01_a": {"SEED": 5, "RATE": 0.5}, "02_b": {"SEED": 6, "NOTE": "hi", "MAP": {"a": 1.0}}}
    values = runner.resolve_parameters(DECLARED, [("SEED", "9")], document, others=["09_other"])
    assert values["02_b"]["SEED"] == 9, "the command line wins"
    with pytest.raises(ParameterError, match="09_other must be declared"):
        runner.resolve_parameters(DECLARED, [], document)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"SEED": True}, "SEED must be int, got True"),
        ({"SEED": 1.0}, "SEED must be int, got 1.0"),
        ({"ID": 5}, "ID must be str, got 5; put it in quotes"),
        ({"02_b": {"SIZES": [1, "2"]}}, r"SIZES must be list\[int\], got '2'"),
        ({"02_b": {"RATE": 1.0}}, "RATE must be declared in the parameters cell of 02_b"),
    ],
)
def test_wrong_values_in_files_are_refused(document, message):
    with pytest.raises(ParameterError, match=message):
        runner.resolve_parameters(DECLARED, [], document)


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\tx: 1"])
def test_broken_parameter_files_are_refused(tmp_path, text):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ParameterError, match=r"p\.yaml: must"):
        runner.read_parameters_file(path)
    with pytest.raises(ParameterError, match="must be a readable"):
        runner.read_parameters_file(tmp_path / "gone.json")


def test_folders_count_from_the_shell(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    values = runner.resolve_parameters(DECLARED, [("DATA_DIR", "mine")])
    assert values["02_b"]["DATA_DIR"] == str(tmp_path / "mine")


PATHS = declared_parameters(
    'SPLATS: str = ""  # a splat file of your own, é, or a folder\n'
    'ENCODER: str = "mini"  # a shipped name, or a folder\n'
    'TEACHER: str = "mini"  # a model, or MODEL@FILE\n'
    'LABEL_FILE: str | None = None\nMANY: list[str] = []  # files\nQUERY: str = ""  # what is looked for; a profile'
)


@pytest.mark.parametrize("given", ["words", "file"])
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SPLATS", "sub/../plain.ply", "{here}/plain.ply"),
        ("SPLATS", "~/plain.ply", "{home}/plain.ply"),
        ("SPLATS", "/a/b.ply", "/a/b.ply"),
        ("SPLATS", "", ""),
        ("LABEL_FILE", "x.csv", "{here}/x.csv"),
        ("LABEL_FILE", None, None),
        ("MANY", ["a", "~/b"], ["{here}/a", "{home}/b"]),
        ("ENCODER", "clipgs-mini", "clipgs-mini"),
        ("ENCODER", "run", "{here}/run"),
        ("ENCODER", "~/run", "{home}/run"),
        ("TEACHER", "ViT-B-32/openai", "ViT-B-32/openai"),
        ("TEACHER", "ViT-B-32@w.pt", "ViT-B-32@{here}/w.pt"),
        ("QUERY", "~/x", "~/x"),
    ],
)
def test_paths_in_any_parameter_count_from_the_shell(monkeypatch, tmp_path, given, name, value, expected):
    """Case 28; ``sub`` need not exist, nor need the files."""
    here, home = tmp_path / "here", tmp_path / "home"
    for folder in (here / "run", home / "run"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    word = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    words, document = ([(name, word)], None) if given == "words" else ([], {name: value})
    got = runner.resolve_parameters({"n": PATHS}, words, document)["n"][name]
    assert json.dumps(got) == json.dumps(expected).replace("{here}", str(here)).replace("{home}", str(home))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("X: int = 1 + 1", "must be a literal"),
        ("import os", "must hold only NAME: type = literal"),
        ("X: int = 'a'", "X must be int, got 'a'"),
        ("X: set = 1", "must be annotated with str, int"),
        ("X = None", "must be annotated"),
        ("X: int =", "must be valid Python"),
    ],
)
def test_bad_parameter_cells_are_refused(source, message):
    with pytest.raises(ParameterError, match=message):
        declared_parameters(source)


# ---- finding notebooks ---------------------------------------------------------------------------------------


def test_notebooks_are_found_by_name_number_and_file(tmp_path):
    for name in ("02_two", "01_one"):
        write_notebook(tmp_path, name, "x = 1")
    assert [n.name for n in runner.find_notebooks(tmp_path)] == ["01_one", "02_two"]
    for word in ("02", "02_two", "02_two.ipynb", "notebooks/02_two.ipynb"):
        assert [n.name for n in runner.find_notebooks(tmp_path, [word])] == ["02_two"]
    found = runner.find_notebooks(tmp_path, ["01"])[0]
    assert (found.title, found.question, found.cells) == ("A title", "Does it run?", 3)
    with pytest.raises(NotebookError, match=r"did you mean '01_one'\?"):
        runner.find_notebooks(tmp_path, ["01_on"])
    with pytest.raises(NotebookError, match="the notebooks folder must exist"):
        runner.find_notebooks(tmp_path / "gone")


def test_bad_notebooks_are_refused_before_anything_starts(tmp_path):
    path = write_notebook(tmp_path, "01_x", "x = 1")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].metadata = {}
    nbformat.write(notebook, path)
    with pytest.raises(NotebookError, match='exactly one code cell must carry the tag "parameters", got 0'):
        runner.read_notebook(path)
    notebook.cells[1].metadata = {"tags": ["parameters"]}
    notebook.cells[1].source = "SEED: int = 0"
    nbformat.write(notebook, path)
    with pytest.raises(NotebookError, match="must declare OUT_DIR"):
        run(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    path.write_text("<html>")
    with pytest.raises(NotebookError, match="must be a Jupyter notebook"):
        runner.read_notebook(path)


def test_options_are_checked(tmp_path):
    with pytest.raises(NotebookError, match="--jobs must be at least 1"):
        Options(tmp_path, jobs=0)
    with pytest.raises(NotebookError, match="--timeout must be more than 0"):
        Options(tmp_path, timeout=float("nan"))
