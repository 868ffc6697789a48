"""Running notebooks: one process each, so many at a time, none left behind.

A process and not a thread: papermill that hangs (a wedged kernel, a lost port) can be ended from outside only, and
each notebook has its own event loop, working directory and number of threads.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from .. import runtime
from .console import Console
from .index import write_index
from .notebooks import Notebook, NotebookError
from .processes import kill_family
from .state import Outcome, expected_seconds, input_key, is_current, save_outcome, shared_key

_SLACK = 180.0  # seconds beyond the cell timeout before a silent worker is given up
INTERRUPTED = "interrupted"
# jsonschema, under nbformat, imports this checker of international addresses where it is installed; it builds a grammar
# for a second, two thirds of the worker's start, and notebooks hold nothing for it to check.
_WORKER = """
import sys
sys.modules["rfc3987_syntax"] = None
from clipgs_lib.runner.worker import main
main(sys.argv[1])
"""


@dataclass(frozen=True)
class Options:
    """How `run_notebooks` runs."""

    out: Path  # folder for executed notebooks, pages and logs; made when missing
    jobs: int = 1  # notebooks at a time, >= 1
    timeout: float = 600.0  # seconds a cell may take, > 0
    force: bool = False  # run also what has not changed

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise NotebookError(f"--jobs must be at least 1, got {self.jobs}")
        if not self.timeout > 0:
            raise NotebookError(f"--timeout must be more than 0 seconds, got {self.timeout:g}")


@dataclass
class _Job:
    """One notebook that is to be run, is running, or has run."""

    notebook: Notebook
    parameters: dict[str, Any]
    key: str
    process: subprocess.Popen[bytes] | None = None
    kernel: psutil.Process | None = None
    began: float = 0.0
    heard: float = 0.0  # when the worker last said something, monotonic seconds
    done: dict[str, Any] = field(default_factory=dict)  # the worker's last word

    @property
    def name(self) -> str:
        return self.notebook.name


@dataclass(frozen=True)
class Report:
    """What a call of `run_notebooks` came to."""

    outcomes: tuple[Outcome, ...]  # of notebooks that ran, in order of their names
    skipped: tuple[str, ...]  # names of notebooks that had not changed
    interrupted: bool  # stopped by Ctrl-C or SIGTERM

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Those that did not pass."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")


def run_notebooks(
    notebooks: Sequence[Notebook],
    values: Mapping[str, Mapping[str, Any]],
    options: Options,
    console: Console,
    listed: Sequence[Notebook] = (),
) -> Report:
    """Run notebooks in order, each in its own process; go on after failures; write results as each ends.

    ``values`` (notebook name -> parameters) were checked before. The index page, which lists ``listed`` or else the
    notebooks, is written anew as each one ends; the console is told about every step.

    Raises:
        NotebookError: when a notebook declares no ``OUT_DIR``; nothing has been started then.
    """
    for notebook in notebooks:
        if "OUT_DIR" not in notebook.parameters:
            raise NotebookError(
                f"{notebook.path}: must declare OUT_DIR in its parameters cell; metrics.json goes there"
            )
    options.out.mkdir(parents=True, exist_ok=True)
    shared, waiting, skipped = shared_key(), [], []
    for notebook in notebooks:
        given = {"OUT_DIR": str((options.out / notebook.name).absolute())} | dict(values.get(notebook.name, {}))
        job = _Job(notebook, given, input_key(notebook, given, shared))
        if not options.force and is_current(options.out, job.name, job.key, Path(given["OUT_DIR"])):
            skipped.append(job.name)
            console.skipped(job.name)
        else:
            waiting.append(job)
    outcomes: list[Outcome] = []
    interrupted = False
    console.planned(expected_seconds([job.notebook for job in waiting], options.out), options.jobs)
    try:
        with _terminable(), console:
            for outcome in _loop(waiting, options, console):
                outcomes.append(outcome)
                write_index(listed or notebooks, options.out)
    except KeyboardInterrupt:
        interrupted = True
        for job in waiting:
            if job.process is not None and job.name not in {outcome.name for outcome in outcomes}:
                job.done = {"status": "failed", "error": INTERRUPTED}
                outcomes.append(_finish(job, options))
    write_index(listed or notebooks, options.out)
    return Report(tuple(sorted(outcomes, key=lambda o: o.name)), tuple(skipped), interrupted)


def _loop(waiting: Sequence[_Job], options: Options, console: Console) -> Iterator[Outcome]:
    """Start, listen, finish; whatever happens, no process survives this function."""
    upcoming, running = list(waiting), list[_Job]()
    inbox: queue.Queue[tuple[_Job, dict[str, Any] | None]] = queue.Queue()
    with tempfile.TemporaryDirectory(prefix="clipgs-run-", ignore_cleanup_errors=True) as scratch:
        try:
            while upcoming or running:
                while upcoming and len(running) < options.jobs:
                    job = upcoming.pop(0)
                    running.append(job)
                    _start(job, options, Path(scratch), inbox)
                    console.started(job.name, job.notebook.cells)
                for job in running:
                    _give_up_if_silent(job, options)
                console.heartbeat()
                try:
                    job, message = inbox.get(timeout=0.5)
                except queue.Empty:
                    continue
                if message is not None:
                    _hear(job, message, console)
                    continue
                outcome = _finish(job, options)
                running.remove(job)
                console.ended(outcome)
                yield outcome
        finally:
            for job in running:
                _kill(job)


def _start(job: _Job, options: Options, scratch: Path, inbox: queue.Queue[Any]) -> None:
    """Write the job down and start its worker, with a thread that listens to it."""
    files = _files(job, options)
    files["log"].parent.mkdir(parents=True, exist_ok=True)
    order = {
        "name": job.name,
        "title": job.notebook.title,
        "notebook": str(job.notebook.path),
        "parameters": job.parameters,
        "timeout": options.timeout,
        "metrics": str(Path(job.parameters["OUT_DIR"], runtime.METRICS_FILE)),
    } | {key: str(path) for key, path in files.items()}
    order_file = scratch / f"{job.name}.json"
    order_file.write_text(json.dumps(order), encoding="utf-8")
    threads = str(max(1, (os.cpu_count() or 1) // options.jobs))  # so that kernels do not fight for cores
    limits = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads} if options.jobs > 1 else {}
    environment = {
        **limits,
        **os.environ,
        "JUPYTER_RUNTIME_DIR": str(scratch),  # connection files of killed kernels go with it
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, not one of the user's home
        "PLOTLY_RENDERER": "plotly_mimetype",  # the figure as data; the page draws it
        "PYTHONUNBUFFERED": "1",
    }
    job.began, job.heard = time.time(), time.monotonic()
    job.process = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(order_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others in order
    )
    threading.Thread(target=_listen, args=(job, inbox), daemon=True).start()


def _listen(job: _Job, inbox: queue.Queue[Any]) -> None:
    """Pass on a worker's lines; None when it has ended."""
    assert job.process is not None and job.process.stdout is not None
    with job.process.stdout as lines:
        for line in lines:
            with suppress(json.JSONDecodeError):
                inbox.put((job, json.loads(line)))
    inbox.put((job, None))


def _hear(job: _Job, message: dict[str, Any], console: Console) -> None:
    job.heard = time.monotonic()
    if message.get("kernel"):
        with suppress(psutil.NoSuchProcess):
            job.kernel = psutil.Process(message["kernel"])
    if "cell" in message:
        console.progressed(job.name, message["cell"], job.notebook.cells)
    job.done = message.get("done", job.done)


def _give_up_if_silent(job: _Job, options: Options) -> None:
    """Kill a worker that says nothing for longer than a cell may take; its end is then heard like any other."""
    if time.monotonic() - job.heard > options.timeout + _SLACK and not job.done:
        job.done = {"status": "failed", "error": "the notebook's process hung and was killed"}
        _kill(job)


def _finish(job: _Job, options: Options) -> Outcome:
    """Make sure that all of a job is gone, tidy its files, keep and return its outcome."""
    assert job.process is not None
    with suppress(subprocess.TimeoutExpired):
        job.process.wait(timeout=0 if job.done.get("error") == INTERRUPTED else 10)
    _kill(job)
    files = _files(job, options)
    code = job.process.returncode
    done = job.done or {"status": "failed", "error": f"the notebook's process ended with code {code}"}
    if files["partial"].exists():
        files["partial"].replace(files["failed"])
    if done["status"] == "passed":
        files["failed"].unlink(missing_ok=True)
    outcome = Outcome(
        name=job.name,
        seconds=round(time.time() - job.began, 2),
        finished=time.time(),
        key=job.key,
        parameters=job.parameters,
        log=str(files["log"]),
        **done,
    )
    save_outcome(options.out, outcome)
    return outcome


def _files(job: _Job, options: Options) -> dict[str, Path]:
    out = options.out.absolute()
    return {
        "partial": out / f".{job.name}.running.ipynb",
        "executed": out / f"{job.name}.ipynb",
        "failed": out / f"{job.name}.failed.ipynb",
        "page": out / f"{job.name}.html",
        "log": out / "logs" / f"{job.name}.log",
    }


def _kill(job: _Job) -> None:
    """End a job's worker and kernel with everything they started; nothing happens when they are gone."""
    if job.process is None:
        return
    members = [job.kernel] if job.kernel else []
    if job.process.poll() is None:
        members.append(psutil.Process(job.process.pid))
    kill_family(*members)
    job.process.wait()
    if job.process.stdin and not job.process.stdin.closed:
        job.process.stdin.close()


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does; only in the main thread, where signals arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
