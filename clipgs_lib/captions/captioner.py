"""Hook for a captioning model: any callable that sees the views of an object and returns texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .caption import Caption
from .filtering import FilterReport, filter_captions

Captioner = Callable[[np.ndarray], Sequence[str]]


@dataclass(frozen=True)
class CaptionerResult:
    """What a captioning model said about one object.

    Args:
        report: its texts after the same filter that all others pass; kept ones are ``enriched``.
        error: why there are none, when the model failed; else None.
    """

    report: FilterReport
    error: str | None = None


def run_captioner(captioner: Captioner, images: np.ndarray) -> CaptionerResult:
    """Ask a captioning model about one object; whatever it raises is reported, not raised.

    Args:
        captioner: ``images [V, H, W, 3]`` uint8 -> texts. It gets a read-only array.
        images: ``[V, H, W, 3]`` uint8 views.

    Raises:
        ValueError: when the images have another shape or type, which is the caller's mistake.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or len(images) == 0:
        raise ValueError(f"images must be uint8 of shape [V, H, W, 3], V >= 1, got {images.dtype} {list(images.shape)}")
    view = images.view()
    view.flags.writeable = False
    try:
        texts = captioner(view)
        if isinstance(texts, (str, bytes)) or not isinstance(texts, Sequence):
            raise TypeError(f"must return a list of strings, got {type(texts).__name__}")
    except Exception as error:  # a model of somebody else: any failure concerns this object alone
        name = getattr(captioner, "__name__", type(captioner).__name__)
        return CaptionerResult(FilterReport(), f"{name}: {type(error).__name__}: {error}")
    report = filter_captions([Caption(t, "enriched") if isinstance(t, str) else t for t in texts], kind="text")
    kept = tuple(replace(caption, source="enriched") for caption in report.kept)
    return CaptionerResult(replace(report, kept=kept))
