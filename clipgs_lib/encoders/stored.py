"""Encoders on disk: ``weights.safetensors`` and ``config.json`` in one folder. Nothing is ever unpickled."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..files import replacing
from ..weights import misfits
from .configs import EncoderError, config_from_dict
from .encoder import Encoder
from .factory import build_encoder, encoder_names

FORMAT = "clipgs-encoder"
VERSION = 1
WEIGHTS, CONFIG = "weights.safetensors", "config.json"
SHIPPED = Path(__file__).resolve().parents[2] / "data" / "encoders"
INFO = ("teacher", "data", "metrics")  # what a checkpoint tells beside its settings
_KEYS = {"format", "version", "config", "embed_dim", "sha256", *INFO}
_HALF_MAX = 65504.0


def save_encoder(
    folder: str | os.PathLike[str],
    encoder: Encoder,
    info: Mapping[str, Any] | None = None,
    *,
    state: Mapping[str, Tensor] | None = None,
    half: bool = False,
) -> Path:
    """Write an encoder's weights and settings; an older checkpoint in ``folder`` stays until both are on disk.

    Args:
        folder: made when missing.
        encoder: any.
        info: ``teacher`` (``{"identity": ..., "dim": ...}``), ``data`` (what it was trained on, with its hash)
            and ``metrics``, all optional, of JSON types; None for the encoder's ``info``.
        state: weights to store instead of those the encoder has now, named and shaped alike (an average, the best).
        half: store weights as float16, half the size; running statistics stay float32.

    Returns:
        The folder.

    Raises:
        EncoderError: for other entries in ``info``, a teacher of another dimension, a ``state`` of other names or
            shapes, weights that are not finite or do not fit float16.
        OSError: when the files cannot be written.
    """
    info = encoder.info if info is None else info
    _check_info(info, encoder.embed_dim)
    if state is not None and (faults := misfits(state, encoder.state_dict())):
        raise EncoderError(f"state must fit the encoder: {faults}")
    weights = save(_stored(encoder, state, half), metadata={"format": "pt"})
    document = {
        "format": FORMAT,
        "version": VERSION,
        "config": encoder.config.to_dict(),
        "embed_dim": encoder.embed_dim,
        **{key: info.get(key, {}) for key in INFO},
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    try:
        text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise EncoderError(f"info must hold finite numbers, words, lists and dictionaries: {error}") from error
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as weights_file, replacing(folder / CONFIG) as config_file:
        weights_file.write_bytes(weights)
        config_file.write_text(text, encoding="utf-8")
    return folder


def load_encoder(
    name_or_folder: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    *,
    teacher: str | None = None,
    embed_dim: int | None = None,
) -> Encoder:
    """Load an encoder, in evaluation mode; its ``info`` tells teacher, data and metrics.

    Args:
        name_or_folder: a shipped one ("clipgs-mini", "point-mini", "duoduo-mini"); "bag-mean" or "bag-max", which have
            no weights; or a folder that `save_encoder` wrote.
        device: where its weights go.
        teacher: identity of the teacher that it must have been trained against, if any; a bag of views becomes that of
            this teacher.
        embed_dim: D of that teacher, for a bag of views.

    Raises:
        EncoderError: when it is not there, damaged, of another format or a future version, of other settings than its
            weights, or of another teacher; the message says what to do.
    """
    if (name := str(name_or_folder)) in ("bag-mean", "bag-max"):
        return _bag(name, teacher, embed_dim).to(device).eval()
    folder = _find(name_or_folder)
    document = _read_config(folder / CONFIG)
    identity = document["teacher"].get("identity")
    if teacher is not None and identity != teacher:
        raise EncoderError(f"the teacher of {folder} must be {teacher!r}, but it was trained against {identity!r}")
    config = config_from_dict(document["config"])
    if config.embed_dim != document["embed_dim"]:
        raise EncoderError(f"embed_dim in {folder / CONFIG} must be that of its config: {config.embed_dim}")
    state = _read_weights(folder / WEIGHTS, document["sha256"])
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten at once
        encoder = build_encoder(config)
    if faults := misfits(state, encoder.state_dict()):
        raise EncoderError(f"weights in {folder} must fit its {CONFIG}: {faults}")
    encoder.load_state_dict(state)
    encoder.info = {key: document[key] for key in INFO}
    return encoder.to(device).eval()


def _bag(name: str, teacher: str | None, embed_dim: int | None) -> Encoder:
    """A bag of views of a teacher, by its identity; of `mini` without one."""
    if teacher is None:
        return build_encoder(name, embed_dim)
    title, _, digest = teacher.partition(" sha256:")
    encoder = build_encoder(name, embed_dim, teacher=title, teacher_sha256=digest or "unknown")
    encoder.info = {key: {} for key in INFO} | {"teacher": {"identity": teacher, "dim": encoder.embed_dim}}
    return encoder


def _find(name: str | os.PathLike[str]) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    shipped = SHIPPED / str(name)
    if os.sep not in str(name) and shipped.is_dir():
        return shipped
    there = sorted(path.name for path in SHIPPED.glob("*") if (path / CONFIG).is_file())
    hint = f"shipped are {', '.join(there)}" if there else "none is shipped yet"
    if str(name) in encoder_names():
        make = f"clipgs train --encoder {name} --shards SET --out RUN"
        raise EncoderError(
            f"weights of {name!r} must lie in data/encoders/{name}, got none ({hint}); train them with `{make}` "
            "and load the folder RUN/encoder, or copy it there"
        )
    raise EncoderError(f"an encoder must be a shipped name or a folder with {CONFIG}, got {str(name)!r} ({hint})")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EncoderError(
            f"an encoder's folder must hold {CONFIG}, got none at {path}; is it a checkpoint?"
        ) from error
    except ValueError as error:  # JSON and UTF-8
        raise EncoderError(f"{path} must be JSON, got {error}; the file is damaged, copy it anew") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise EncoderError(f"{path} must say format {FORMAT!r}; this is the file of something else")
    if document.get("version") != VERSION:
        raise EncoderError(
            f"{path} must be of version {VERSION}, got {document.get('version')!r}; update clipgs_lib to read it"
        )
    if set(document) != _KEYS:
        unknown, missing = sorted(set(document) - _KEYS), sorted(_KEYS - set(document))
        raise EncoderError(f"{path} must hold {', '.join(sorted(_KEYS))}; unknown {unknown}, missing {missing}")
    for key in ("config", *INFO):
        if not isinstance(document[key], dict):
            raise EncoderError(f"{key} in {path} must be a dictionary, got {type(document[key]).__name__}")
    return document


def _read_weights(path: Path, digest: str) -> dict[str, Tensor]:
    try:
        blob = path.read_bytes()
    except FileNotFoundError as error:
        raise EncoderError(f"an encoder's folder must hold {WEIGHTS}, got none at {path}; copy it anew") from error
    got = hashlib.sha256(blob).hexdigest()
    if got != digest:
        raise EncoderError(
            f"{path} ({len(blob):,} bytes) must have the sha256 that {CONFIG} names, {str(digest)[:12]}..., got "
            f"{got[:12]}...; it is cut short, damaged or of another checkpoint: copy both files anew"
        )
    try:
        state = load(blob)
    except SafetensorError as error:
        raise EncoderError(f"{path} must be a safetensors file, got {error}") from error
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state.items()}


def _stored(encoder: Encoder, state: Mapping[str, Tensor] | None, half: bool) -> dict[str, Tensor]:
    parameters = {name for name, _ in encoder.named_parameters()}
    stored = {}
    for key, tensor in (encoder.state_dict() if state is None else state).items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.is_floating_point():
            top = float(tensor.abs().max())
            if not math.isfinite(top):
                raise EncoderError(f"weights must be finite, got NaN or infinity in {key}; nothing was saved")
            if half and key in parameters:
                if top > _HALF_MAX:
                    raise EncoderError(f"weights must fit float16 for half=True, got {top:.3g} in {key}")
                tensor = tensor.half()
        stored[key] = tensor
    return stored


def _check_info(info: Mapping[str, Any], embed_dim: int) -> None:
    if unknown := sorted(set(info) - set(INFO)):
        raise EncoderError(f"info must hold {', '.join(INFO)} only, got {', '.join(unknown)}")
    for key, value in info.items():
        if not isinstance(value, Mapping):
            raise EncoderError(f"info[{key!r}] must be a dictionary, got {type(value).__name__}")
    dim = info.get("teacher", {}).get("dim", embed_dim)
    if dim != embed_dim:
        raise EncoderError(f"the teacher's dimension must be the encoder's {embed_dim}, got {dim}")
