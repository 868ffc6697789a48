"""Small random CLIPs and folders of views, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from clipgs_lib.libraries import import_open_clip

NAME = "tiny-for-tests"
MODEL_CFG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def build(seed: int = 0) -> torch.nn.Module:
    """A random open_clip model of `MODEL_CFG`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return import_open_clip().CLIP(**MODEL_CFG)


def save_weights(path: Path, seed: int = 0) -> Path:
    """Weights of such a model, as safetensors or as torch saves a state dict."""
    state = {key: value.contiguous() for key, value in build(seed).state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, str(path))
    else:
        torch.save({"state_dict": state, "epoch": 3}, path)
    return path


def save_folder(folder: Path, seed: int = 0) -> Path:
    """An open_clip folder with its configuration and weights."""
    folder.mkdir(parents=True)
    config = {"model_cfg": MODEL_CFG, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_weights(folder / "open_clip_model.safetensors", seed)
    return folder


def register(folder: Path) -> None:
    """Tell open_clip of `NAME`, so that ``NAME@FILE`` can be loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.json").write_text(json.dumps(MODEL_CFG))
    import_open_clip().add_model_config(folder)


def pictures(count: int, size: int = 40, seed: int = 0) -> torch.Tensor:
    """Random smooth pictures ``[count, size, size, 3]`` in ``[0, 1]``."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear").permute(0, 2, 3, 1)


WORDS = ["apple", "boat", "chair", "dog", "egg", "fire truck", "guitar", "house"]
WORDS += ["island", "jacket", "kettle", "lamp", "mountain", "needle", "onion", "piano"]


def save_views(folder: Path, splits: dict[str, str] | None = None, size: int = 32) -> Path:
    """Sixteen coloured blobs with words, two views each, and ``views.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = []
    for word in WORDS:
        color = rng.integers(0, 256, (4, 4, 3)).repeat(size // 4, 0).repeat(size // 4, 1)
        files = []
        for view in range(2):
            alpha = np.zeros((size, size, 1), np.int64)
            alpha[2 : size - 2 - view, 2 : size - 2] = 255
            pixels = np.concatenate([color, alpha], axis=2).astype(np.uint8)
            files.append(f"{word.replace(' ', '_')}_{view}.png")
            Image.fromarray(pixels).save(folder / files[-1])
        split = (splits or {}).get(word, "train")
        row = {"object": f"{word} 1", "label": word, "texts": [word, f"a {word}"], "split": split, "files": files}
        lines.append(json.dumps(row))
    (folder / "views.jsonl").write_text("\n".join(lines) + "\n")
    return folder
