"""Running one function over many objects: in worker processes, or through Ray on a cluster.

Both yield results as they come. An object that takes its process down with it (a crash in native code, the kernel's
out-of-memory killer) costs that object, not the run. Workers end when the process that started them is gone, even
when it was killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")
_PRELOAD = ["torch", "clipgs_lib.triplets.shards"]  # imported once, by the server that workers are forked from
_AHEAD = 2  # objects per worker that are handed out before results are back


def over_processes(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int, dead: Callable[[Item, str], Result]
) -> Generator[Result, None, None]:
    """Yield ``work(item)`` for each item, in the order in which they finish.

    Workers are forked from a clean server (or spawned where there is none), never from this process: threads of torch
    and numba, and contexts of OpenGL and CUDA, do not survive a fork. Each uses one thread of torch.

    Args:
        work: importable function that does not raise.
        items: what can be sent to a process.
        workers: processes at a time.
        dead: result for an item whose process died, with a sentence that says how.
    """
    left = deque(items)
    while left:
        handed: list[Item] = []
        try:
            with _pool(workers) as pool:
                try:
                    yield from _drain(pool, work, left, handed, workers * _AHEAD)
                finally:
                    pool.shutdown(wait=False, cancel_futures=True)  # in case nobody wants the rest
        except BrokenProcessPool:
            for suspect in handed:  # one of them took its process down: each gets one of its own
                yield _alone(work, suspect, dead)


def _drain(
    pool: ProcessPoolExecutor,
    work: Callable[[Item], Result],
    left: deque[Item],
    handed: list[Item],
    window: int,
) -> Iterator[Result]:
    """Feed the pool from ``left``; ``handed`` holds what it has not given back."""
    running: dict[Future[Result], Item] = {}
    while left or running:
        while left and len(running) < window:
            item = left.popleft()
            handed.append(item)
            running[pool.submit(work, item)] = item
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            result = future.result()
            handed.remove(running.pop(future))
            yield result


def _alone(work: Callable[[Item], Result], item: Item, dead: Callable[[Item, str], Result]) -> Result:
    try:
        with _pool(1) as pool:
            return pool.submit(work, item).result()
    except BrokenProcessPool:
        return dead(item, "the worker process died, also when it had nothing else to do (crash, or out of memory)")


def _pool(workers: int) -> ProcessPoolExecutor:
    server = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if server else "spawn")
    if server:
        context.set_forkserver_preload(_PRELOAD)
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(dict(os.environ),))


def _begin_worker(environment: dict[str, str]) -> None:
    os.environ.update(environment)  # the server has that of the moment when it was started
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the pool in order
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot end its workers, and they would wait for ever for more work."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def over_ray(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    address: str,
    dead: Callable[[Item, str], Result],
    *,
    workers: int = 1,
    gpus: float = 0.0,
) -> Generator[Result, None, None]:
    """Yield ``work(item)`` for each item from the workers of a Ray cluster, in the order in which they finish.

    Args:
        work: importable function that does not raise; `clipgs_lib` must be installed on every node.
        address: of the cluster (``"auto"``, ``"ray://host:10001"``), or ``"local"`` to start one with ``workers``.
        gpus: share of a GPU that one object takes.

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
    try:
        yield from _drain_ray(ray, work, deque(items), dead, gpus)
    finally:
        if started:
            ray.shutdown()


def _drain_ray(
    ray: Any, work: Callable[[Item], Result], left: deque[Item], dead: Callable[[Item, str], Result], gpus: float
) -> Iterator[Result]:
    window = max(1, int(ray.cluster_resources().get("CPU", 1))) * _AHEAD
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=1)(_single_threaded)
    running: dict[Any, Item] = {}
    while left or running:
        while left and len(running) < window:
            item = left.popleft()
            running[remote.remote(work, item)] = item
        for reference in ray.wait(list(running), num_returns=1)[0]:
            item = running.pop(reference)
            try:
                result = ray.get(reference)
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
                result = dead(item, f"its Ray worker died twice: {str(error).splitlines()[0]}")
            yield result


def _single_threaded(work: Callable[[Item], Result], item: Item) -> Result:
    torch.set_num_threads(1)
    return work(item)
