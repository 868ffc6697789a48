"""`load_teacher`: names into teachers, and sentences when one cannot be had."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..libraries import import_open_clip, quick_when_offline
from ..weights import WeightsError, misfits, read_weights
from . import mini
from .teacher import Teacher, TeacherError

FORMS = (
    '"mini"; "MODEL/PRETRAINED" such as "ViT-B-32/laion2b_s34b_b79k"; "MODEL@FILE" or "MODEL/PRETRAINED@FILE" with '
    'local weights of safetensors or torch.save; "hf-hub:ORG/REPO"; "local-dir:FOLDER"'
)
MEANWHILE = 'meanwhile load_teacher("mini") works offline, in a space of its own'


def load_teacher(name: str = "mini", *, device: str | torch.device = "auto", batch_size: int = 64) -> Teacher:
    """Load a frozen teacher.

    Args:
        name: ``"mini"``, the embedded one; ``"MODEL/PRETRAINED"``, any pair that open_clip lists; ``"MODEL@FILE"``,
            local weights (``"MODEL/PRETRAINED@FILE"`` when that tag's preprocessing or activation is theirs);
            ``"hf-hub:ORG/REPO"``; ``"local-dir:FOLDER"`` with ``open_clip_config.json`` and weights.
        device: ``"auto"`` takes a CUDA device when there is one.
        batch_size: pictures or texts in one pass.

    Returns:
        The teacher, in eval mode, without gradients. Nothing is unpickled: weights are tensors only.

    Raises:
        TeacherError: when it cannot be had; the message says how to get it.
        ValueError: for a name of no known form.
    """
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else torch.device(device)
    if name == "mini":
        model, tokenizer, config = mini.open_mini()
        short, model_cfg = "mini", config["model_cfg"]
    else:
        with quick_when_offline():
            model, tokenizer, short, model_cfg = _open(name)
    return Teacher(model, tokenizer, name=short, model_cfg=model_cfg, device=where, batch_size=batch_size)


def random_tower(model: str) -> torch.nn.Module:
    """The image tower of a model that open_clip lists, with random weights and ``preprocess_cfg``."""
    with _without_warnings():
        return import_open_clip().create_model(model, load_weights=False, pretrained_text=False).visual


@dataclass(frozen=True)
class _Source:
    """What to hand to open_clip."""

    model: str  # open_clip's model name, with its scheme
    short: str  # for people
    weights: str  # file
    preprocess: dict[str, Any] = field(default_factory=dict)  # what the tag says beside open_clip's defaults
    quick_gelu: bool = False  # the tag was trained with it


def _open(name: str) -> tuple[Any, Any, str, dict[str, Any]]:
    source = _resolve(name)
    open_clip = import_open_clip()
    try:
        state = read_weights(source.weights)
        model_cfg = open_clip.get_model_config(source.model)
        bias = {"init_logit_bias": 0.0} if "logit_bias" in state else {}  # of SigLIP; else open_clip makes no place
        with _without_warnings():  # that the weights are still random
            model = open_clip.create_model(
                source.model,
                load_weights=False,
                force_quick_gelu=source.quick_gelu,
                force_preprocess_cfg=source.preprocess,
                pretrained_text=False,  # the weights hold both towers
                **bias,
            )
        _load(model, state)
        with mini.quiet_transformers():
            tokenizer = open_clip.get_tokenizer(source.model)
    except WeightsError as error:
        raise TeacherError(
            f"teacher {name!r} needs weights that fit {source.model}: {error}. Or {MEANWHILE}"
        ) from error
    except Exception as error:  # open_clip, timm, transformers and the hub raise many kinds; all become one sentence
        got = f"{type(error).__name__}: {_first_line(error)}"
        raise TeacherError(
            f"teacher {name!r} must be one that open_clip can build, got {got}. Or {MEANWHILE}"
        ) from error
    return model, tokenizer, source.short, model_cfg | {"force_quick_gelu": source.quick_gelu}


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep warnings of the root logger, which open_clip uses, off the screen for a while."""

    def severe(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    logging.getLogger().addFilter(severe)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(severe)


def _load(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load weights as open_clip's `load_checkpoint` does, from tensors instead of a file."""
    factory = import_open_clip().factory
    state = factory.convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = factory.convert_to_custom_text_state_dict(state)
    expected = model.state_dict()
    if "logit_bias" in expected:
        state.setdefault("logit_bias", torch.zeros(()))
    for key in {"logit_scale", "logit_bias"} & set(state) & set(expected):
        state[key] = state[key].reshape(expected[key].shape)  # [] or [1]
    if "text.transformer.embeddings.position_ids" not in expected:  # of older versions of transformers
        state.pop("text.transformer.embeddings.position_ids", None)
    factory.resize_pos_embed(state, model)
    factory.resize_text_pos_embed(state, model)
    if faults := misfits(state, expected):
        raise WeightsError(f"no key may be missing or unexpected, got: {faults}; is it of another model?")
    model.load_state_dict(state)


def _resolve(name: str) -> _Source:
    if name.startswith("hf-hub:"):
        return _Source(name, name, _fetch_hub(name))
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:")).expanduser()
        if not (folder / "open_clip_config.json").is_file():
            raise TeacherError(f"local-dir needs open_clip_config.json and weights in a folder, got none in {folder}")
        weights = import_open_clip().factory._find_checkpoint_in_dir(folder)
        if weights is None:
            raise TeacherError(f"weights could not be loaded: local-dir needs a .safetensors or .bin file in {folder}")
        return _Source(f"local-dir:{folder}", folder.resolve().name, weights)
    head, at, file = name.partition("@")
    model, tag = _split(head)
    if not tag and not at:
        raise ValueError(f"a teacher's name must be one of {FORMS}; got {name!r}")
    open_clip = import_open_clip()
    tag_cfg = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    if at:
        weights, short = str(Path(file).expanduser()), f"{head if tag else model}@{Path(file).name}"
        if not Path(weights).is_file():
            raise TeacherError(f"weights for {model} must be in a file, found none at {weights}; check the path")
    else:
        short, (repository, _, inside) = f"{model}/{tag}", tag_cfg.get("hf_hub", "").rpartition("/")
        weights = _fetch(short, repository, inside, lambda: open_clip.download_pretrained(tag_cfg))
    keys = ("mean", "std", "interpolation", "resize_mode", "fill_color")
    preprocess = {key: tag_cfg[key] for key in keys if tag_cfg.get(key) is not None}
    return _Source(model, short, weights, preprocess, bool(tag_cfg.get("quick_gelu")))


def _split(head: str) -> tuple[str, str]:
    """Model and tag of ``MODEL`` or ``MODEL/TAG``; a slash in the model (``ViT-B/32``) becomes a dash."""
    open_clip = import_open_clip()
    whole = head.replace("/", "-")
    if whole in open_clip.list_models():
        return whole, ""
    model, _, tag = head.rpartition("/")
    model = model.replace("/", "-")
    if model not in open_clip.list_models():
        raise ValueError(f"a teacher's name must be one of {FORMS}; got {head!r}, and open_clip knows no such model")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag not in tags:
        raise ValueError(f"{model} must come with one of {', '.join(tags) or 'no tag, only @FILE'}; got {tag!r}")
    return model, tag


def _fetch_hub(name: str) -> str:
    """Path of a repository's weights; its configuration comes with them."""
    repository, fetch = name.removeprefix("hf-hub:"), import_open_clip().pretrained.download_pretrained_from_hf
    _fetch(name, repository, "", lambda: fetch(repository, filename="open_clip_config.json"))
    return _fetch(name, repository, "", lambda: fetch(repository))


def _fetch(name: str, repository: str, file: str, download: Callable[[], str]) -> str:
    """Path of a file, downloaded or from the cache, or sentences on how to get it."""
    try:
        return str(download())
    except (OSError, RuntimeError, ValueError) as error:
        by_hand = f"or:\n  hf download {repository} {file}".rstrip() + "\n" if repository else ""
        raise TeacherError(
            f"teacher {name!r} must be in the local cache or be reachable over the network, got: {_first_line(error)}\n"
            "fetch it on a machine with network:\n"
            f'  python -c "from clipgs_lib.teachers import load_teacher; load_teacher({name!r})"\n{by_hand}'
            f"and copy its cache ({os.environ.get('HF_HOME', '~/.cache/huggingface')}) here; {MEANWHILE}"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
