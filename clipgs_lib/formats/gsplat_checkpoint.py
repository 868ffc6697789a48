"""Training checkpoints of gsplat and nerfstudio: a ``torch.save``d dict of parameters.

Page: https://docs.gsplat.studio (``examples/simple_trainer.py`` saves ``{"step": ..., "splats": state_dict}``). Keys
``means [N, 3]``, ``quats [N, 4]`` wxyz, ``scales [N, 3]`` **log**, ``opacities [N]`` **logit**, ``sh0 [N, 1, 3]``,
``shN [N, K-1, 3]``. Frame: that of the training cameras, so ``up_axis`` stays "unknown".

nerfstudio's splatfacto (https://docs.nerf.studio/nerfology/methods/splat.html) saves ``{"pipeline": state_dict}`` with
``_model.gauss_params.NAME`` (older: ``_model.NAME``), where opacities are ``[N, 1]`` and ``features_dc [N, 3]`` and
``features_rest [N, K-1, 3]`` are the SH. With SH degree 0 its ``features_dc`` are logits of the colours.

Loaded with ``weights_only=True``: nothing is unpickled but tensors and plain containers. Only the zip form that torch
has written since 1.6 is taken, and only uncompressed (as torch writes it), so that loading takes the size of the file.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ExplainedError
from ..files import ZIP_ERRORS
from ..geometry import MAX_SH_DEGREE, SH_C0
from ..splats import COLUMNS, column_fits
from ..weights import read_torch
from .packing import SH_COEFFICIENTS, sh_degree_of, warn_dropped_sh
from .raw import FormatError, RawSplats, check_count

NAME = "checkpoint"
SUFFIXES = (".pt", ".pth", ".ckpt")

MAX_PICKLE_BYTES = 1 << 22
_SHN = "[N, K-1, 3] with K-1 in 0, 3, 8, 15"
_REQUIRED = COLUMNS[:5]  # shN may lack
_SHAPES = dict(zip(COLUMNS, ("[N, 3]", "[N, 4]", "[N, 3]", "[N]", "[N, 1, 3]", _SHN), strict=True))
_SPLATFACTO = {"sh0": "features_dc", "shN": "features_rest"}  # where nerfstudio's names differ
_TODO_SAVE = 'save it as torch.save({"splats": splats.state_dict()}, path)'


def sniff(path: Path, head: bytes) -> bool:
    """Whether this is a zip whose first member is the ``data.pkl`` of ``torch.save``."""
    if len(head) < 30 or not head.startswith(b"PK\x03\x04"):
        return False
    length = int.from_bytes(head[26:28], "little")
    return head[30 : 30 + length].endswith(b"/data.pkl")


def read(path: Path) -> RawSplats:
    """Decode a checkpoint of gsplat or of nerfstudio's splatfacto, or a bare dict of their parameters."""
    _check_archive(path)
    try:
        content = read_torch(path, _TODO_SAVE)
    except ExplainedError as error:
        raise FormatError(path, error.must, error.got, error.todo) from None
    splats = content.get("splats", content) if isinstance(content, Mapping) else content
    if isinstance(splats, Mapping) and splats is content:
        splats = _splatfacto(path, splats)
    if not isinstance(splats, Mapping):
        got = f"a {type(splats).__name__}"
        raise FormatError(path, 'the checkpoint must be a dict of tensors, or hold one as "splats"', got, _TODO_SAVE)
    missing = [name for name in _REQUIRED if name not in splats]
    if missing:
        must = f"the checkpoint must hold {', '.join(_REQUIRED)}"
        got = f"the keys {', '.join(str(key)[:40] for key in list(splats)[:12]) or 'of an empty dict'}"
        raise FormatError(path, must, got, f"add {', '.join(missing)}; appearance models without SH cannot be read")
    count = len(splats["means"]) if isinstance(splats["means"], Tensor) and splats["means"].dim() else 0
    columns = {name: _column(path, name, splats[name], count) for name in _SHAPES if name in splats}
    scales = torch.from_numpy(columns["scales"]).exp().numpy()
    opacities = torch.from_numpy(columns["opacities"]).sigmoid().numpy()
    shN = columns.get("shN", np.empty((count, 0, 3), np.float32))
    raw = RawSplats(columns["means"], columns["quats"], scales, opacities, columns["sh0"], shN)
    if isinstance(content, Mapping) and isinstance(content.get("step"), int):
        raw.notes.append(f"saved at training step {content['step']:,}")
    if re.search(r"_rank[0-9]+\.", path.name):
        raw.notes.append("one rank of a distributed run; the other ranks hold the rest of the gaussians (Splats.cat)")
    others = {str(key): value for key, value in splats.items() if key not in COLUMNS}
    raw.ignore(name for name, value in others.items() if isinstance(value, Tensor) and value.shape[:1] == (count,))
    return raw


def _splatfacto(path: Path, content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The parameters of a nerfstudio checkpoint of splatfacto under gsplat's names; anything else as it is."""
    model = content.get("pipeline", content)
    if not isinstance(model, Mapping):
        return content
    stems = [key.removesuffix("features_dc") for key in model if isinstance(key, str) and key.endswith("features_dc")]
    stem = next((stem for stem in stems if f"{stem}means" in model), None)
    if stem is None:
        if model is content:
            return content
        must = "a nerfstudio checkpoint must hold the gaussians of splatfacto, as _model.gauss_params.means"
        got = f"the keys {', '.join(str(key)[:60] for key in list(model)[:12]) or 'of an empty dict'}"
        raise FormatError(path, must, got, "train splatfacto, or export the gaussians with ns-export")
    stored = {name: f"{stem}{_SPLATFACTO.get(name, name)}" for name in COLUMNS}
    others = {str(key).removeprefix(stem): value for key, value in model.items() if key not in stored.values()}
    splats = others | {name: model[key] for name, key in stored.items() if key in model}
    dc, rest = splats["sh0"], splats.get("shN")
    if isinstance(dc, Tensor) and dc.dim() == 2:
        splats["sh0"] = dc = dc[:, None]
    if isinstance(dc, Tensor) and dc.is_floating_point() and isinstance(rest, Tensor) and rest.shape[1:2] == (0,):
        splats["sh0"] = (dc.float().sigmoid() - 0.5) / SH_C0
    return splats


def _column(path: Path, name: str, value: Any, count: int) -> np.ndarray:
    """One parameter as a contiguous array, checked before strides are expanded."""
    must = f"{name} must be a dense floating tensor of shape {_SHAPES[name]} with N = {count:,}"
    if not isinstance(value, Tensor) or value.layout != torch.strided or not value.is_floating_point():
        got = f"a {value.dtype} {value.layout} tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise FormatError(path, must, got, _TODO_SAVE)
    if name == "opacities" and value.shape == (count, 1):
        value = value[:, 0]
    if name == "shN" and value.dim() == 3 and value.shape[2] == 3:
        degree = sh_degree_of(value.shape[1] + 1) or 0
        if degree > MAX_SH_DEGREE:
            warn_dropped_sh(path, degree)
            value = value[:, : SH_COEFFICIENTS[-1]]
    if not column_fits(name, value) or len(value) != count:
        raise FormatError(path, must, f"shape {list(value.shape)}", _TODO_SAVE)
    check_count(path, value.numel(), path.stat().st_size, value.element_size())  # strides may repeat a small storage
    return value.detach().to(torch.float32).contiguous().numpy()


def _check_archive(path: Path) -> None:
    """Refuse an archive that could grow while it is loaded."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (*ZIP_ERRORS, ValueError) as error:
        todo = "the file is truncated; fetch it again"
        raise FormatError(path, "the zip archive must be intact", str(error), todo, "truncated") from None
    size = path.stat().st_size
    if any(m.compress_type != zipfile.ZIP_STORED or m.compress_size != m.file_size for m in members):
        must = "members of a checkpoint must be stored uncompressed, as torch.save does"
        raise FormatError(path, must, "a compressed one", "load and save it again with torch.save")
    if sum(m.file_size for m in members) > size or len({m.filename for m in members}) < len(members):
        must = f"members of the archive must be different and fit in its {size:,} bytes"
        raise FormatError(path, must, "members that overlap or repeat", "save it again with torch.save")
    pickles = [m.file_size for m in members if m.filename.endswith("/data.pkl")]
    if len(pickles) != 1 or pickles[0] > MAX_PICKLE_BYTES:
        must = f"the archive must hold one data.pkl of at most {MAX_PICKLE_BYTES:,} bytes"
        got = f"{len(pickles)} of {max(pickles, default=0):,} bytes"
        raise FormatError(path, must, got, _TODO_SAVE)
