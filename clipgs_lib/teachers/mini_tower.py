"""The image tower of `mini`: EfficientNet-Lite0 with its batch norms folded in, and two ways on into MiniLM's space.

Mingxing Tan and Quoc V. Le, "EfficientNet" (ICML 2019), in the Lite0 variant of TensorFlow's TPU models: no squeeze
and excitation, ReLU6, "same" padding. The weights were learned on ImageNet's 1,000 classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.nn import functional as F

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
