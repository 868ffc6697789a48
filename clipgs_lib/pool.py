"""Running one function over many objects: in worker processes, or through Ray on a cluster.

Both yield results as they come. An object that takes its process down with it (a crash in native code, the kernel's
out-of-memory killer) or never comes to an end costs that object, not the run. Workers end when the process that
started them is gone, even when it was killed.
"""

from __future__ import annotations

import faulthandler
import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
LIMIT = 1_800.0  # seconds that one object may take
_PRELOAD = ["torch", "clipgs_lib.shards.triplet"]  # imported once, by the server that workers are forked from
_GRACE = 5.0  # seconds for an idle process to end by itself
_AHEAD = 2  # objects per CPU of a cluster that are handed out before results are back
_DIED = "the worker process died, also when it had nothing else to do (crash, or out of memory)"


Done = tuple[Item, Result | None, str]  # an item, what came of it, and how its process ended where nothing did


def over_processes(
    work: Callable[[Item], Result], items: Sequence[Item], *, workers: int, limit: float = LIMIT
) -> Generator[Done[Item, Result]]:
    """Yield ``(item, work(item), "")`` for each item, in the order in which they finish.

    Workers are forked from a clean server (or spawned where there is none), never from this process: threads of torch
    and numba, and contexts of OpenGL and CUDA, do not survive a fork. Each uses one thread of torch. An item whose
    process died is tried once more at the end, alone: another one may have eaten the memory. Then it is
    ``(item, None, how)``, with a sentence that says how.

    Args:
        work: importable function that does not raise.
        items: what can be sent to a process.
        workers: processes at a time.
        limit: seconds that one item may take; then its process is ended and another takes its place.
    """
    again: list[Item] = []
    for item, result, how in _share_out(work, deque(items), workers, limit):
        if how == _DIED:
            again.append(item)
        else:
            yield item, result, how
    for item in again:
        yield from _share_out(work, deque([item]), 1, limit)


def _share_out(
    work: Callable[[Item], Result], left: deque[Item], workers: int, limit: float
) -> Generator[Done[Item, Result]]:
    """Feed processes from ``left``."""
    pool: list[_Worker[Item, Result]] = []
    try:
        while left or any(worker.busy for worker in pool):
            pool = [worker for worker in pool if worker.alive]
            idle = sum(not worker.busy for worker in pool)
            pool += [_Worker(work, limit) for _ in range(min(workers - len(pool), len(left) - idle))]
            for worker in pool:
                if left and not worker.busy:
                    worker.hand(left.popleft())
            for worker in _wait_for(pool):
                item = worker.item
                answer = worker.answer()
                how = f"it took longer than {limit:g} s, so its process was ended" if worker.late else _DIED
                yield (item, answer[0], "") if answer else (item, None, how)
    finally:
        for worker in pool:
            worker.end()


def _wait_for(pool: Sequence[_Worker[Item, Result]]) -> list[_Worker[Item, Result]]:
    """The workers that have an answer, have died or are late; waits until there is one."""
    busy = [worker for worker in pool if worker.busy]
    while True:
        soonest = min(worker.deadline for worker in busy)
        pause = None if soonest == math.inf else max(0.0, soonest - time.monotonic())
        ready = wait([worker.pipe for worker in busy], timeout=pause)
        stirring = [worker for worker in busy if worker.pipe in ready and not worker.greets()]
        stirring += [worker for worker in busy if worker not in stirring and worker.deadline <= time.monotonic()]
        if stirring:
            return stirring


class _Worker(Generic[Item, Result]):
    """A process that works on one item at a time; the clock runs once it has started up."""

    def __init__(self, work: Callable[[Item], Result], limit: float) -> None:
        server = "forkserver" in multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if server else "spawn")
        if server:
            context.set_forkserver_preload(_PRELOAD)
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(work, theirs, dict(os.environ)), daemon=True)
        self._process.start()
        theirs.close()  # theirs alone now, so that the pipe breaks when the process is gone
        self.item: Any = None  # what it works on, or did last
        self.busy, self.alive, self.late = False, True, False
        self.deadline = math.inf
        self._limit, self._started = limit, False

    def hand(self, item: Item) -> None:
        """Give it the next item."""
        self.item, self.busy = item, True
        self.deadline = time.monotonic() + self._limit if self._started else math.inf
        with suppress(BrokenPipeError):  # it died before: `answer` finds that out
            self.pipe.send(item)

    def greets(self) -> bool:
        """Whether what came is the greeting of a process that has started up."""
        if self._started:
            return False
        with suppress(EOFError, ConnectionError):
            self.pipe.recv()
            self._started, self.deadline = True, time.monotonic() + self._limit
        return self._started

    def answer(self) -> tuple[Result] | None:
        """What it made of its item; None when the process died, or is late and now ended."""
        with suppress(EOFError, ConnectionError):
            if self.pipe.poll():
                self.item, result, self.busy, self.deadline = None, self.pipe.recv(), False, math.inf
                return (result,)
            self.late = True
        self.end()
        return None

    def end(self) -> None:
        """Let the process end, by force when it is at work."""
        if not self.alive:
            return
        self.pipe.close()  # an idle process ends by itself then
        if self.busy:
            self._process.kill()
        self._process.join(_GRACE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.busy, self.alive = False, False


def _serve(work: Callable[[Any], Any], pipe: Connection, environment: dict[str, str]) -> None:
    """Run in a worker process: items in, results out, until the pipe is closed."""
    os.environ.update(environment)  # the server has that of the moment when it was started
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, BrokenPipeError):
        pipe.send(None)  # the greeting
        while True:
            pipe.send(work(pipe.recv()))


def _end_with_parent() -> None:
    """A killed parent cannot end its workers, and one in the middle of an object would go on for nothing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def over_ray(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    address: str,
    workers: int = 1,
    gpus: float = 0.0,
    limit: float = LIMIT,
) -> Generator[Done[Item, Result]]:
    """As `over_processes`, from the workers of a Ray cluster; `clipgs_lib` must be installed on every node.

    ``address`` is that of the cluster (``"auto"``, ``"ray://host:10001"``), or ``"local"`` to start one with
    ``workers`` CPUs. An item takes a share of ``gpus``; after ``limit`` seconds its worker ends itself, and Ray tries
    it once more.

    Raises:
        ValueError: when Ray is not installed.
        ConnectionError: when there is no cluster at ``address``.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError(f"--ray needs the package ray, got {error}; pip install 'clipgs_lib[cluster]'") from None
    started = not ray.is_initialized()
    if started:
        local: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, configure_logging=False, **local)
    left, running = deque(items), dict[Any, Item]()
    try:
        window = max(1, int(ray.cluster_resources().get("CPU", 1))) * _AHEAD
        remote: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=1)(_watched)
        while left or running:
            while left and len(running) < window:
                item = left.popleft()
                running[remote.remote(work, item, limit)] = item
            for reference in ray.wait(list(running), num_returns=1)[0]:
                item = running.pop(reference)
                try:
                    yield item, ray.get(reference), ""
                except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
                    reason = str(error).splitlines()[0]
                    yield item, None, f"its Ray worker died twice, or took longer than {limit:g} s: {reason}"
    finally:
        if started:
            ray.shutdown()


def _watched(work: Callable[[Item], Result], item: Item, limit: float) -> Result:
    """Work in a Ray worker, which ends when it takes too long: its own thread in C sees to that, whatever hangs."""
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(limit, exit=True, file=2)
    try:
        return work(item)
    finally:
        faulthandler.cancel_dump_traceback_later()
