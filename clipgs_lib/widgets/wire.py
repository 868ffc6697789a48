"""The bytes that the viewer's page receives, and what it says of them.

One buffer per view, little-endian 32-bit words, three blocks one after the other:

* base, 12 words per gaussian: mean x y z, scale x y z, quaternion w x y z (unit) as float32; then the base colour
  ``0.5 + 0.2821 sh0`` as half floats, red in the low and green in the high half of word 10, blue in the low half of
  word 11, whose high half is the opacity as a 16-bit fraction of 65535;
* SH, 0, 8, 12 or 24 words per gaussian for degree 0 to 3: the coefficients of ``shN`` as half floats, coefficient
  by coefficient with red, green, blue next to each other, padded with zeros;
* index, one word per gaussian, only when some were left out: its row in the splats that the user passed.
"""

from __future__ import annotations

import numpy as np
import torch

from ..plots.shown import Shown

BASE_WORDS = 12
SH_WORDS = {0: 0, 1: 8, 2: 12, 3: 24}  # per gaussian, by SH degree
_HALF_MAX = 65504.0


def note(shown: Shown) -> str:
    """One line for a viewport's header, such as ``"300,000 of 512,000 gaussians, largest opacity × area · SH 3"``."""
    count, total = len(shown.rows), shown.total
    text = f"{count:,} gaussians" if count == total else f"{count:,} of {total:,} gaussians"
    if count < total - shown.broken:
        text += ", largest opacity × area" if "largest" in shown.rule else f", {shown.rule}"
    if shown.broken:
        text += f", {shown.broken:,} not finite"
    return f"{text} · SH {shown.splats.sh_degree}"


def pack(shown: Shown) -> bytes:
    """The buffer of one view; layout in the module's text."""
    splats = shown.splats
    count = len(splats)
    words = np.zeros((count, BASE_WORDS), dtype="<u4")
    numbers = words.view("<f4")
    numbers[:, 0:3] = splats.means.numpy()
    numbers[:, 3:6] = splats.scales.numpy()
    numbers[:, 6:10] = torch.nn.functional.normalize(splats.quats, dim=1).numpy()
    halves = words.view("<f2").reshape(count, 2 * BASE_WORDS)
    halves[:, 20:23] = np.clip(splats.colors.numpy(), -_HALF_MAX, _HALF_MAX)
    words.view("<u2").reshape(count, 2 * BASE_WORDS)[:, 23] = np.round(65535 * splats.opacities.numpy())
    blocks = [words]
    sh_words = SH_WORDS[splats.sh_degree]
    if sh_words:
        sh = np.zeros((count, 2 * sh_words), dtype="<f2")
        coefficients = splats.shN.reshape(count, -1).numpy()  # [n, 3 (K-1)]
        np.clip(coefficients, -_HALF_MAX, _HALF_MAX, out=sh[:, : coefficients.shape[1]], casting="unsafe")
        blocks.append(sh)
    if shown.kept is not None:
        blocks.append(shown.kept.numpy().astype("<u4"))
    return b"".join(block.tobytes() for block in blocks)


def block_words(shown: Shown) -> dict[str, int]:
    """How many words each block of `pack` has, with the count and degree, as the page wants to know it."""
    count, degree = len(shown.splats), shown.splats.sh_degree
    return {
        "count": count,
        "degree": degree,
        "base_words": BASE_WORDS * count,
        "sh_words": SH_WORDS[degree] * count,
        "index_words": 0 if shown.kept is None else count,
    }
