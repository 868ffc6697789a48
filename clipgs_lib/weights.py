"""State dicts, tensors by name: out of a file without unpickling, held against a model's, and their sha256."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .errors import ExplainedError
from .words import first_of

CONTAINERS = ("state_dict", "model_state_dict", "module", "model")  # where trainers keep a state dict in their files
# what DistributedDataParallel, torch.compile, Lightning and FSDP put before names; compile and FSDP inside them, too
_WRAPPERS = re.compile(r"^(?:(?:module|model|_orig_mod|_fsdp_wrapped_module)\.)+")
_INNER = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module)\.")


class WeightsError(ValueError):
    """A file that is no state dict, or may not be read as one."""


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors by name out of a safetensors file or one of ``torch.save``, whatever its suffix; nothing is unpickled.

    Args:
        path: of a state dict, alone or under one of `CONTAINERS` in a trainer's checkpoint.

    Returns:
        Tensors on the CPU, by their names without what wrappers of a model put before them.

    Raises:
        WeightsError: when it is not there, damaged, of another format, or holds objects beside tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"a checkpoint must be a file, got none at {path}; fetch it and check the path")
    with path.open("rb") as file:
        is_safetensors = path.suffix == ".safetensors" or file.read(9)[8:] == b"{"
    try:
        content = (
            load_file(path) if is_safetensors else read_torch(path, "save its state dict alone, best as .safetensors")
        )
    except SafetensorError as error:
        raise WeightsError(f"{path} must be a safetensors file, got SafetensorError: {error}; fetch it anew") from error
    except ExplainedError as error:
        raise WeightsError(str(error)) from None
    held = (content.get(name) for name in CONTAINERS) if isinstance(content, Mapping) else ()
    state = next((value for value in held if isinstance(value, Mapping)), content)
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(
            f"{path} must hold a state dict, by itself or as {' or '.join(CONTAINERS)}, got no such thing"
        )
    plain = {_INNER.sub("", _WRAPPERS.sub("", str(key))): tensor for key, tensor in state.items()}
    if len(plain) < len(state):
        raise WeightsError(f"{path} must hold one model, got some names both with and without a wrapper's prefix")
    return plain


def read_torch(path: Path, save: str) -> Any:
    """What ``torch.save`` wrote, of nothing but tensors and plain containers; ``save`` says how to make such a file.

    Raises:
        ExplainedError: when it is damaged, of another format, or holds objects, which are never unpickled.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler runs on foreign bytes: almost any exception can come out of it
        text = " ".join(str(error).rpartition("WeightsUnpickler error:")[2].split())
        odd = re.search(r"Unsupported (?:global|class): (?:GLOBAL )?(\S+)|TorchScript", text)
        got = f"a {(odd[1] or 'TorchScript')[:100]}" if odd else f"{type(error).__name__}: {text[:200]}"
        todo = (
            f"objects are never unpickled, as that can run code; {save}"
            if odd
            else "it is damaged or of another format: fetch it anew"
        )
        must = "the checkpoint must be intact, of nothing but tensors and plain containers"
        raise ExplainedError(path, must, got, todo) from None


def misfits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """What keeps a state dict from being loaded: names that are missing or unknown, and other shapes; "" if nothing."""
    kinds = (
        [f"{key} is missing" for key in expected if key not in state],
        [f"{key} is unknown" for key in state if key not in expected],
        [
            f"{key} has {list(state[key].shape)}, not {list(place.shape)}"
            for key, place in expected.items()
            if key in state and state[key].shape != place.shape
        ],
    )
    return "; ".join(first_of(faults, 4, between="; ") for faults in kinds if faults)


def state_sha256(settings: Any, state: Mapping[str, Tensor]) -> str:
    """Hex sha256 of settings of JSON types and of names, types, shapes and values of tensors."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for key, tensor in sorted(state.items()):
        digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
