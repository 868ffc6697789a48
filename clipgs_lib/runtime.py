"""What every notebook begins and ends with: `start` (seeds, device, folders) and `record` (its ``metrics.json``)."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ._version import __version__
from .files import write_text
from .words import plural

if TYPE_CHECKING:
    import torch

METRICS_FILE = "metrics.json"
REQUIRED = ("SEED", "DEVICE", "DATA_DIR", "OUT_DIR", "TEACHER")  # parameters of every notebook
_PROJECT = Path(__file__).resolve().parent.parent
_latest: Run | None = None


@dataclass(frozen=True)
class Run:
    """One execution of one notebook, as `start` set it up."""

    notebook: str  # the notebook's file name without ".ipynb"
    seed: int  # given to random, numpy and torch
    device: torch.device  # where tensors go
    data_dir: Path  # existing folder, absolute
    out_dir: Path  # existing folder, absolute; the notebook writes here and nowhere else
    teacher: str | None  # name of the CLIP teacher, None where a notebook uses none
    parameters: dict[str, Any]  # the notebook's parameters as written into metrics.json
    versions: dict[str, str]  # of clipgs_lib, python, torch, numpy
    began: float  # unix time, seconds

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since `start`."""
        return max(0.0, time.time() - self.began)

    def folder(self, name: str, *, fresh: bool = False) -> Path:
        """A folder below ``out_dir``, made when missing; ``fresh`` removes what an earlier run left there."""
        folder = self.out_dir / name
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def results(self, name: str) -> Any:
        """Measurements of longer runs, committed as ``results/NAME.json`` in the data folder; None where it is not."""
        file = self.data_dir / "results" / f"{name}.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def start(notebook: str, namespace: Mapping[str, Any]) -> Run:
    """Begin a notebook: seed everything, choose the device, make the output folder, print one environment line.

    Args:
        notebook: the notebook's own file name without ``.ipynb``; the runner checks that it matches.
        namespace: where the parameters stand, in a notebook ``globals()``. Its UPPER_CASE names with plain values are
            recorded, and five must be among them: ``SEED`` in ``0 .. 2**32 - 1``, for `random`, numpy's legacy
            generator and torch (all devices); ``DEVICE``, see `resolve_device`; ``DATA_DIR``, an existing folder;
            ``OUT_DIR``, made when missing; ``TEACHER``, name of the CLIP teacher. Relative folders count from the
            working folder.

    Returns:
        The `Run`; `record` finds the latest by itself.

    Raises:
        ValueError: for a missing parameter, or a seed or device that cannot be used; the message says what to pass.
        FileNotFoundError: when ``DATA_DIR`` does not exist.
        NotADirectoryError: when ``OUT_DIR`` is a file.
    """
    import numpy as np
    import torch

    global _latest
    if not notebook or "/" in notebook or notebook.endswith(".ipynb"):
        raise ValueError(f'notebook must be a file name without folder and ".ipynb", got {notebook!r}')
    plain = (str, int, float, list, dict, tuple, os.PathLike, type(None))
    given: dict[str, Any] = {
        name: value for name, value in namespace.items() if name.isupper() and isinstance(value, plain)
    }
    if missing := [name for name in REQUIRED if name not in given]:
        raise ValueError(f"the parameters must include {', '.join(missing)}, got {', '.join(given) or 'none'}")
    seed = given["SEED"]
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"SEED must be an integer in 0 .. 2**32 - 1, got {seed!r}")
    device = resolve_device(given["DEVICE"])
    data, out = (Path(given[name]).expanduser().resolve() for name in ("DATA_DIR", "OUT_DIR"))
    if not data.is_dir():
        raise FileNotFoundError(
            f"DATA_DIR must be an existing folder, got {str(given['DATA_DIR'])!r} (looked at {data})"
        )
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"OUT_DIR must be a folder, got the file {out}; remove it or choose another")
    out.mkdir(parents=True, exist_ok=True)

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that draw from the legacy generator must repeat too
    torch.manual_seed(seed)
    python = ".".join(map(str, sys.version_info[:3]))
    _latest = Run(
        notebook=notebook,
        seed=seed,
        device=device,
        data_dir=data,
        out_dir=out,
        teacher=given["TEACHER"],
        parameters=_jsonable(given, "parameters"),
        versions={
            "clipgs_lib": __version__,
            "python": python,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
        },
        began=time.time(),
    )
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    threads = torch.get_num_threads()
    print(f"clipgs_lib {__version__} · torch {torch.__version__} · {where} · {threads} threads · seed {seed}")
    return _latest


def record(
    metrics: Mapping[str, Any], *, findings: str | Sequence[str] = (), labels: Mapping[str, str] | None = None
) -> None:
    """End a notebook: write ``metrics.json`` into its output folder, atomically.

    The runner counts a notebook as passed only when this file is there, names the notebook and is newer than the start.

    Args:
        metrics: name -> finite number, text, bool, None, or nested lists and dicts of these; torch and numpy
            scalars are converted.
        findings: what was found, one plain sentence each, in Markdown; shown on the index page.
        labels: metric -> what it is and, behind the last comma, its unit; the index page shows these metrics, in this
            order. The unit ``share`` is for numbers in ``[0, 1]``, which are shown as percentages.

    Raises:
        RuntimeError: when `start` was not called before.
        ValueError: when there is no metric, one with a label is missing, or a number is NaN or infinite; the message
            names its key.
        TypeError: for a value that JSON cannot hold; the message names its key.
    """
    if (run := _latest) is None:
        raise RuntimeError("record() needs a run: call clipgs_lib.runtime.start(...) at the top of the notebook first")
    if not metrics:
        raise ValueError("metrics must name at least one number, got none; record what the notebook measured")
    if unknown := [name for name in labels or {} if name not in metrics]:
        raise ValueError(f"labels must be of metrics, got {', '.join(unknown)}; there are {', '.join(metrics)}")
    document = {
        "notebook": run.notebook,
        "began": run.began,
        "recorded": time.time(),
        "seconds": round(run.seconds, 3),
        "seed": run.seed,
        "device": str(run.device),
        "versions": run.versions,
        "parameters": run.parameters,
        "metrics": _jsonable(metrics, "metrics"),
        "findings": _jsonable([findings] if isinstance(findings, str) else list(findings), "findings"),
        "labels": _jsonable(labels or {}, "labels"),
    }
    write_text(run.out_dir / METRICS_FILE, json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    print(f"recorded {plural(len(metrics), 'metric')} in {METRICS_FILE} after {run.seconds:.1f} s")


def resolve_device(name: str) -> torch.device:
    """Turn ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"`` into a device that is really there.

    Raises:
        ValueError: for another word, or for CUDA that this machine or this torch build does not have.
    """
    import torch

    kind, _, index = str(name).partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdecimal())):
        raise ValueError(f'device must be "auto", "cpu", "cuda" or "cuda:N", got {name!r}')
    if kind == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda":
        if not torch.cuda.is_available():
            reason = "no GPU is visible" if torch.version.cuda else f"torch {torch.__version__} is built without CUDA"
            raise ValueError(f'device {name!r} needs CUDA, but {reason}; pass "auto" or "cpu"')
        if index and int(index) >= torch.cuda.device_count():
            raise ValueError(f"device {name!r} does not exist, this machine has {torch.cuda.device_count()} GPU(s)")
    return torch.device(name)


def native_bf16(device: torch.device) -> bool:
    """Whether the hardware itself computes in bfloat16; elsewhere it is emulated, several times slower than float32.

    CUDA: compute capability 8.0 on. CPU: AVX512-BF16 or AMX on x86, the bf16 extension on ARM.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def resolve_precision(name: str, device: torch.device) -> Literal["fp32", "bf16"]:
    """Turn ``"auto"`` into ``"bf16"`` where ``device`` has it natively, else ``"fp32"``; ValueError for other words."""
    if name not in ("auto", "fp32", "bf16"):
        raise ValueError(f'precision must be "auto", "fp32" or "bf16", got {name!r}')
    return "bf16" if name == "bf16" or (name == "auto" and native_bf16(device)) else "fp32"


def mixed_precision(name: str, device: torch.device) -> torch.autocast:
    """Autocast to what `resolve_precision` makes of ``name``; use it with `torch.no_grad`, not `inference_mode`."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=resolve_precision(name, device) == "bf16")


def real_data_dir() -> Path | None:
    """Folder of real meshes and splats, or None when there is none here.

    It is ``CLIPGS_REAL_DATA`` (the empty string means none), else ``../shared/data`` beside the project, if there.

    Raises:
        FileNotFoundError: when ``CLIPGS_REAL_DATA`` names no folder.
    """
    named = os.environ.get("CLIPGS_REAL_DATA")
    if named is None:
        folder = _PROJECT.parent / "shared" / "data"
        return folder if folder.is_dir() else None
    if not named:
        return None
    folder = Path(named).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f'CLIPGS_REAL_DATA must name a folder, got {named!r}; set it to "" to go without')
    return folder


def real_files(pattern: str) -> list[Path]:
    """Files below `real_data_dir` that match a pattern such as ``"photos/*.jpg"``, sorted; none where it is absent."""
    folder = real_data_dir()
    return sorted(folder.glob(pattern)) if folder is not None else []


def _jsonable(value: Any, key: str) -> Any:
    """``value`` in plain JSON types, or an error that names ``key``."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"{key} must have text as keys, got {name!r} ({type(name).__name__})")
        return {name: _jsonable(entry, f"{key}.{name}") for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry, f"{key}[{i}]") for i, entry in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, int | float) and callable(getattr(value, "item", None)):
        if math.prod(getattr(value, "shape", ())) != 1:
            raise TypeError(f"{key} must be a scalar, got an array or tensor; pass .tolist() or a summary")
        return _jsonable(value.item(), key)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key} must be a finite number, got {value}; mend what computes it, or leave it out")
    if isinstance(value, int | float):
        return value
    raise TypeError(f"{key} must be a number, text, bool, None, list or dict, got {type(value).__name__}")
