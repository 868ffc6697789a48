"""One notebook in a process of its own: execute with papermill, check its metrics, make its page.

The parent (`schedule`) starts `main` with the path of a job in JSON and talks over two pipes. On the worker's standard
output come JSON lines: ``{"kernel": pid}``, ``{"cell": i}`` and at last ``{"done": {...}}``. The worker's standard
input stays open as long as the parent lives; when it closes, the worker kills its kernel and leaves. Everything that
the worker or the kernel prints goes to the notebook's log.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections import defaultdict
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
import psutil
import zmq
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbclient.output_widget import OutputWidget
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from ..files import write_text
from .page import freeze_widgets, notebook_page
from .processes import family, kill_family

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class RunFailure(Exception):
    """A run that failed, with what the final table shows."""

    def __init__(self, error: str, place: str = "") -> None:
        super().__init__(error)
        self.error, self.place = error, place


class _Output(OutputWidget):
    """An Output widget whose messages to the kernel do not hide the kernel's own.

    nbclient sends on a synchronous shadow of the socket that it awaits replies on. A send takes away the sign that
    something has come; when that is the cell's reply, it would be seen at the cell's time limit only.
    """

    def send(self, *args: Any, **kwargs: Any) -> None:
        """Send, then have the socket look again; called by nbclient."""
        super().send(*args, **kwargs)
        self.kernel_client.shell_channel.socket.get(zmq.EVENTS)  # zmq.asyncio wakes who waits, if there is anything


class _Client(PapermillNotebookClient):
    """Keeps no state of widgets but the table in which nbclient looks up an Output widget (`interact` makes them)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.widget_registry["@jupyter-widgets/output"]["OutputModel"] = _Output

    def reset_execution_trackers(self) -> None:
        """Begin anew; called by papermill."""
        super().reset_execution_trackers()
        self.widget_state: dict[str, dict[str, Any]] = defaultdict(dict)

    def set_widgets_metadata(self) -> None:
        """Leave the notebook without them; called by papermill."""


class _Engine(Engine):
    """A papermill engine that reports its kernel and each cell as it starts, as JSON lines."""

    stream: TextIO
    source: Any  # the notebook before papermill put its parameters in
    cell = 0  # of the source that runs, counted from 1

    @classmethod
    def report(cls, **message: Any) -> None:
        """Send one line; a parent that is gone is the watcher's business."""
        try:
            cls.stream.write(json.dumps(message) + "\n")
            cls.stream.flush()
        except BrokenPipeError:
            os._exit(1)

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **kwargs: Any) -> Any:
        """Run the cells; named and called by papermill."""
        client = _Client(
            nb_man,
            kernel_name=kernel_name,
            timeout=kwargs["execution_timeout"],
            startup_timeout=kwargs["start_timeout"],
            store_widget_state=False,
            config=Config(KernelManager=_connection()),
            log=logging.getLogger("papermill"),
            log_output=True,
        )

        def starting(cell: Any, cell_index: int) -> None:
            if cls.cell == 0 and client.km is not None:
                cls.report(kernel=getattr(client.km.provisioner, "pid", None))
            cls.cell = _in_source(cls.source, cell_index + 1)
            cls.report(cell=cls.cell)

        client.on_cell_start = starting
        return client.execute()


def _connection() -> dict[str, str]:
    """How to reach the kernel: by sockets in the run's own folder.

    TCP ports are picked free and bound later, so that two kernels starting at once can take the same ones and hang.
    Where the folder's path is too long for a socket's name (about 100 bytes), or there are none, ports have to do.
    """
    file = Path(os.environ["JUPYTER_RUNTIME_DIR"]) / f"k{os.getpid()}.json"
    if os.name != "posix" or len(os.fsencode(file)) > 85:
        return {}
    return {"transport": "ipc", "connection_file": str(file)}


def main(job_file: str) -> None:
    """Run the job that the parent wrote down."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    _Engine.stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with Path(job["log"]).open("w", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    threading.Thread(target=_leave_with_the_parent, daemon=True).start()
    papermill_engines.register("clipgs", _Engine)
    os.environ["CLIPGS_LIVE_PAGES"] = "1"  # for the kernel: viewers leave what a page needs to turn them
    try:
        done = _run(job)
    except RunFailure as failure:
        done = {"status": "failed", "error": failure.error, "place": failure.place}
    except Exception as error:  # the boundary of the process: whatever it was goes to the log and to the parent
        traceback.print_exc()
        done = {"status": "failed", "error": f"{type(error).__name__}: {error}", "place": "outside the notebook"}
    _Engine.report(done=done)


def _run(job: dict[str, Any]) -> dict[str, Any]:
    """Execute, check, publish; returns what the parent records."""
    source = _Engine.source = nbformat.read(job["notebook"], as_version=4)
    partial = Path(job["partial"])
    began = time.time()
    try:
        papermill.execute_notebook(
            source,
            str(partial),
            parameters=job["parameters"],
            engine_name="clipgs",
            kernel_name="python3",  # that of this environment, whatever kernel the author's editor wrote down
            language="python",
            progress_bar=False,
            log_output=True,
            start_timeout=120,
            execution_timeout=job["timeout"],
            cwd=str(Path(job["notebook"]).parent),
        )
    except PapermillExecutionError as error:
        print("\n".join(_ANSI.sub("", line) for line in error.traceback), flush=True)
        raise RunFailure(_one_line(f"{error.ename}: {error.evalue}"), _place(error, source)) from None
    except CellTimeoutError:
        what = f"cell took longer than {job['timeout']:g} s; raise --timeout or make it smaller"
        raise RunFailure(what, _running_cell(source)) from None
    except DeadKernelError:
        what = "the kernel died (out of memory, a crash in native code, or os._exit)"
        raise RunFailure(what, _running_cell(source)) from None
    recorded = _read_metrics(Path(job["metrics"]), job["name"], began)
    executed = freeze_widgets(nbformat.read(partial, as_version=4))
    write_text(Path(job["page"]), notebook_page(executed, job["title"]))
    write_text(Path(job["executed"]), nbformat.writes(executed) + "\n")
    partial.unlink()
    return {"status": "passed"} | recorded


def _read_metrics(path: Path, name: str, began: float) -> dict[str, Any]:
    """Metrics and findings of the metrics file, when this very run of this very notebook wrote it."""
    todo = "the last cell must call clipgs_lib.runtime.record(...); did the notebook stop before it (sys.exit)?"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        recorded, findings = float(document["recorded"]), [str(sentence) for sentence in document["findings"]]
        labels = dict(document.get("labels", {}))
        result = {"metrics": dict(document["metrics"]), "findings": findings, "labels": labels}
        problem = ""
        if document["notebook"] != name:
            got = document["notebook"]
            problem = f"{path.name} must name the notebook {name!r}, got {got!r}; mend runtime.start(...)"
        elif recorded < began:
            problem = f"{path.name} in OUT_DIR is from an earlier run; {todo}"
    except FileNotFoundError:
        problem = f"no {path.name} in OUT_DIR; {todo}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"{path.name} must be written by runtime.record, got {error!r}"
    if problem:
        raise RunFailure(problem, "after the last cell")
    return result


def _place(error: PapermillExecutionError, source: Any) -> str:
    """The failing cell, counted in the source notebook, with the line that failed."""
    number = _in_source(source, error.cell_index + 1)
    text = _ANSI.sub("", "\n".join(error.traceback))
    lines = error.source.splitlines()
    match = re.search(rf"Cell In\s?\[{error.exec_count}\], line (\d+)", text)
    line = int(match.group(1)) if match else 0
    if 1 <= line <= len(lines):
        return f"cell {number}, line {line}: {lines[line - 1].strip()}"
    return f"cell {number}"


def _running_cell(source: Any) -> str:
    """The cell that was running, with its first line."""
    if _Engine.cell == 0:
        return "before the first cell"
    first = source.cells[_Engine.cell - 1].source.strip().partition("\n")[0]
    return f"cell {_Engine.cell}: {first.strip()}"


def _in_source(source: Any, number: int) -> int:
    """A cell's number in the source notebook (papermill injects a cell after the parameters)."""
    parameters = next(i for i, cell in enumerate(source.cells, 1) if "parameters" in cell.metadata.get("tags", []))
    return number if number <= parameters else number - 1


def _one_line(text: str, width: int = 300) -> str:
    text = " ".join(_ANSI.sub("", text).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _leave_with_the_parent() -> None:
    """Wait until standard input closes, which is when the parent is gone; then take the kernel along."""
    while os.read(0, 4096):  # not sys.stdin: its lock would be held while the interpreter shuts down
        pass
    me = psutil.Process()
    kill_family(*[member for member in family(me) if member != me])
    os._exit(1)
