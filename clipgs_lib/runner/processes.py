"""Ending processes with everything that they started."""

from __future__ import annotations

import contextlib

import psutil


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all its descendants that are still there; empty when it is gone (or its id belongs to another)."""
    try:
        if not process.is_running():
            return []
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_family(*processes: psutil.Process, patience: float = 5.0) -> None:
    """Kill processes, those gone passed over, with their descendants; wait ``patience`` seconds until they are gone."""
    doomed = [member for process in processes for member in family(process)]
    for member in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(doomed, timeout=patience)
