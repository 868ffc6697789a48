"""Hand-made PLY bytes for the tests: any property order, type, encoding and line end."""

from __future__ import annotations

import numpy as np
import torch

from clipgs_lib.formats.packing import z_order
from clipgs_lib.splats import Splats

GAUSSIAN = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2",
            "rot_0", "rot_1", "rot_2", "rot_3"]  # fmt: skip
CODES = {"float": "f4", "double": "f8", "uchar": "u1", "uint": "u4", "int": "i4", "short": "i2"}


def in_z_order(splats: Splats) -> Splats:
    """The gaussians in the order in which a compressed PLY is written."""
    return splats[torch.from_numpy(z_order(splats.means.numpy()))]


def stored_columns(splats: Splats) -> dict[str, np.ndarray]:
    """What an INRIA PLY stores of these gaussians, by property name, float64."""
    s = {name: getattr(splats, name).double().numpy() for name in ("means", "quats", "scales", "sh0", "shN")}
    opacities = splats.opacities.double().numpy()
    rest = s["shN"].transpose(0, 2, 1).reshape(len(splats), -1)  # [N, 3 * (K-1)] channel-major
    columns = {"xyz"[i]: s["means"][:, i] for i in range(3)}
    columns |= {f"f_dc_{i}": s["sh0"][:, 0, i] for i in range(3)}
    columns |= {f"f_rest_{i}": rest[:, i] for i in range(rest.shape[1])}
    columns |= {"opacity": np.log(opacities / (1 - opacities))}
    columns |= {f"scale_{i}": np.log(s["scales"][:, i]) for i in range(3)}
    return columns | {f"rot_{i}": s["quats"][:, i] for i in range(4)}


def ply_bytes(
    columns: dict[str, np.ndarray],
    *,
    types: dict[str, str] | None = None,
    order: str = "<",
    newline: str = "\n",
    comments: tuple[bytes, ...] = (),
    before: tuple[bytes, bytes] = (b"", b""),
    after: tuple[bytes, bytes] = (b"", b""),
) -> bytes:
    """A PLY file with one element ``vertex``; ``order`` is "<", ">" or "" for ASCII.

    ``before`` and ``after`` are header lines and data of elements around it.
    """
    types = types or {}
    kinds = {name: types.get(name, "float") for name in columns}
    count = len(next(iter(columns.values())))
    words = {"<": "binary_little_endian", ">": "binary_big_endian", "": "ascii"}[order]
    lines = ["ply", f"format {words} 1.0"]
    head = newline.join(lines).encode() + newline.encode()
    head += b"".join(b"comment " + comment + newline.encode() for comment in comments) + before[0]
    vertex = [f"element vertex {count}", *(f"property {kinds[name]} {name}" for name in columns)]
    head += "".join(line + newline for line in vertex).encode() + after[0] + b"end_header" + newline.encode()
    if order:
        rows = np.empty(count, [(name, order + CODES[kind]) for name, kind in kinds.items()])
        for name, values in columns.items():
            rows[name] = values
        return head + before[1] + rows.tobytes() + after[1]
    typed = [np.asarray(values).astype(CODES[kinds[name]]) for name, values in columns.items()]
    body = "".join(" ".join(repr(v.item()) for v in row) + newline for row in zip(*typed, strict=True))
    return head + before[1] + body.encode() + after[1]


def assert_same(a: Splats, b: Splats, *, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """All columns agree; quaternions up to sign."""
    assert len(a) == len(b) and a.sh_degree == b.sh_degree
    for name in ("means", "scales", "opacities", "sh0", "shN"):
        np.testing.assert_allclose(getattr(a, name).numpy(), getattr(b, name).numpy(), rtol, atol, err_msg=name)
    dots = (a.quats / a.quats.norm(dim=1, keepdim=True) * b.quats / b.quats.norm(dim=1, keepdim=True)).sum(dim=1)
    np.testing.assert_allclose(dots.abs().numpy(), 1, atol=max(atol, 1e-6))
