"""Reading glTF 2.0 with ``KHR_gaussian_splatting`` (``.glb``, and ``.gltf`` with data: URIs or files beside it).

Each point primitive with the extension holds POSITION and, named ``KHR_gaussian_splatting:*``, ROTATION (xyzw),
SCALE, OPACITY (linear, 0 to 1) and SH_DEGREE_l_COEF_n. SCALE is linear in the ratified extension and in the files of
its converters; its drafts had log-scales, which are told by their negative values. glTF is y up, z towards the
viewer; its frame and that of the PLY differ by a half turn about z, as the converters have it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import geometry
from ..splats import COLUMNS, Splats
from . import spz
from .gltf_document import INSTANCING, Document, load_document, placed_meshes
from .packing import SH_COEFFICIENTS, concatenate, no_sh, positive_scales, sh_flips
from .raw import FormatError, RawSplats, warn

NAME = "gltf"
SUFFIXES = (".glb", ".gltf")

EXTENSION = "KHR_gaussian_splatting"
_GLB = b"glTF"
PACKED = "KHR_gaussian_splatting_compression_spz_2"  # a draft: an SPZ in a bufferView
_UNDERSTOOD = {EXTENSION, PACKED, INSTANCING, "KHR_mesh_quantization"}
_READ = tuple(f"{EXTENSION}:{name}" for name in ("ROTATION", "SCALE", "OPACITY", "SH_DEGREE_"))
_HARMLESS = ("POSITION", "NORMAL", "TANGENT", "COLOR_0")  # The last is for viewers that do not know the extension
_COLOR_SPACE = "srgb_rec709_display"
_INSTANCES = 64
_VISITS = 10_000
_OPACITY_ERROR = 1e-4


def sniff(path: Path, head: bytes) -> bool:
    """Whether the bytes start a GLB, or a JSON with glTF's ``asset``. Meshes are glTF too; `read` tells them."""
    if head.startswith(_GLB):
        return True
    text = head.lstrip()
    return text.startswith(b"{") and b'"means"' not in head and (b'"asset"' in head or path.suffix.lower() == ".gltf")


def read(path: Path) -> RawSplats:
    """Read all gaussians of the scene, node transforms applied, in the frame of the PLY; other meshes are refused."""
    document = load_document(path)
    _check_extensions(document)
    with np.errstate(over="ignore", invalid="ignore"):
        parts = _read_scene(document)
    if not parts:
        kind = "a mesh without gaussians" if document.listed("meshes") else "a glTF without meshes"
        todo = "render it into splats first; this reads splats only"
        raise FormatError(path, f"a primitive must carry {EXTENSION}", kind, todo, "mesh")
    raw = concatenate(parts)
    raw.notes = list(dict.fromkeys(raw.notes))
    _half_turn(raw)
    raw.up_axis = "-y"
    return raw


def _read_scene(document: Document) -> list[RawSplats]:
    """The gaussians of every primitive of the scene that has some, placed."""
    parts: list[RawSplats] = []
    visits = total = 0
    for mesh, _, matrix in placed_meshes(document):
        primitives = document.items(mesh, "primitives", dict)
        visits += len(primitives)
        if visits > _VISITS:
            raise document.refuse(f"a scene must have at most {_VISITS:,} primitives", visits, "merge them")
        for primitive in primitives:
            if EXTENSION not in document.child(primitive, "extensions"):
                continue
            part = _read_primitive(document, primitive)
            total += len(part.means)
            room = _INSTANCES * document.total_bytes // 12  # primitives and nodes may share bytes, within bounds
            if total > room:
                must = f"{document.total_bytes:,} bytes must not be instanced to more than {room:,} gaussians"
                raise FormatError(document.path, must, f"at least {total:,}", "refused as a bomb")
            parts.append(_place(document.path, part, matrix))
    return parts


def _check_extensions(document: Document) -> None:
    required = document.root.get("extensionsRequired", [])
    names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    unknown = sorted(set(names) - _UNDERSTOOD)
    if unknown:
        used = str(document.root.get("extensionsUsed"))
        code = "unreadable" if "gaussian" in used else "mesh"
        got = ", ".join(unknown)[:200]
        raise FormatError(document.path, "only known extensions may be required", got, "convert it without them", code)


def _place(path: Path, raw: RawSplats, matrix: np.ndarray) -> RawSplats:
    """Apply a node's world matrix, still in the frame of glTF."""
    if np.array_equal(matrix, np.eye(4)):
        return raw
    linear = matrix[:3, :3]
    volume = abs(np.linalg.det(linear))
    if not volume > 1e-36 or not np.isfinite(matrix).all():
        raise FormatError(path, "node transforms must be finite and invertible", str(matrix[:3].tolist())[:120])
    columns: dict[str, Any] = {name: torch.from_numpy(np.ascontiguousarray(getattr(raw, name))) for name in COLUMNS}
    splats = Splats(**columns)
    stretch = linear / volume ** (1 / 3)
    if np.abs(stretch @ stretch.T - np.eye(3)).max() < 1e-4:  # a similarity
        moved = splats.transform(torch.from_numpy(matrix), allow_reflection=True)
    else:
        moved = _stretched(path, splats, matrix)
    return RawSplats(**{name: getattr(moved, name).numpy() for name in COLUMNS}, notes=raw.notes)


def _stretched(path: Path, splats: Splats, matrix: np.ndarray) -> Splats:
    """Splats under an affine map with uneven scales or shear: covariances become ``A S A^T``; SH only turn."""
    linear = torch.from_numpy(matrix[:3, :3])
    turn = torch.eye(4, dtype=torch.float64)
    u, _, vt = torch.linalg.svd(linear)
    turn[:3, :3] = u @ vt
    if splats.sh_degree:
        warn(path, "a node scales unevenly or shears, which SH above degree 0 cannot follow; they only turn")
    half = linear @ (geometry.quat_to_rotmat(splats.quats.double()) * splats.scales.double()[:, None, :])  # [N, 3, 3]
    axes, scales, _ = torch.linalg.svd(half)  # the left side holds the axes of half @ half^T
    axes[:, :, 2] *= torch.linalg.det(axes)[:, None].sign()
    means = splats.means.double() @ linear.T + torch.from_numpy(matrix[:3, 3])
    turned = splats.transform(turn, allow_reflection=True)
    quats = geometry.rotmat_to_quat(axes)
    return replace(turned, means=means.float(), quats=quats.float(), scales=scales.float())


def _half_turn(raw: RawSplats) -> None:
    """Turn by 180 degrees about z, in place: from the frame of glTF to that of the PLY."""
    raw.means *= np.array([-1, -1, 1], np.float32)
    w, x, y, z = raw.quats.T
    raw.quats = np.stack([z, y, -x, -w], axis=1)  # (0, 0, 0, -1) * q
    if raw.shN.shape[1]:
        raw.shN *= sh_flips((-1, -1, 1), raw.shN.shape[1])[:, None]


def _read_primitive(document: Document, primitive: dict[str, Any]) -> RawSplats:
    path = document.path
    extension = document.child(document.child(primitive, "extensions"), EXTENSION)
    packed = document.child(extension, "extensions")
    if PACKED in packed:
        raw = spz.decode(path, document.view_bytes(document.child(packed, PACKED).get("bufferView")))
        _half_turn(raw)  # back into the frame of glTF
        return raw
    if packed:
        raise FormatError(path, "the gaussians must be stored plainly", f"packed by {', '.join(sorted(packed))[:200]}")
    attributes = document.child(primitive, "attributes")
    means = document.attribute(attributes, "POSITION", 3)
    quats = document.attribute(attributes, f"{EXTENSION}:ROTATION", 4)[:, [3, 0, 1, 2]]
    scales = document.attribute(attributes, f"{EXTENSION}:SCALE", 3)
    opacities = document.attribute(attributes, f"{EXTENSION}:OPACITY", 1)[:, 0]
    sh0 = document.attribute(attributes, f"{EXTENSION}:SH_DEGREE_0_COEF_0", 3)
    raw = RawSplats(
        means=means,
        quats=quats,
        scales=_linear_scales(path, scales),
        opacities=_checked_opacities(path, opacities),
        sh0=sh0[:, None],  # [N, 1, 3]
        shN=_higher_sh(document, attributes, len(means)),
        notes=[f"{EXTENSION}, colour space {str(extension.get('colorSpace', 'not given'))[:40]}"],
    )
    lengths = {len(column) for column in (means, quats, scales, opacities, sh0, raw.shN)}
    if len(lengths) != 1:
        raise FormatError(path, "the attributes of a primitive must have one count", f"counts {sorted(lengths)}")
    _warn_unusual(path, primitive, extension)
    raw.ignore(name for name in attributes if name not in _HARMLESS and not name.startswith(_READ))
    return raw


def _warn_unusual(path: Path, primitive: dict[str, Any], extension: dict[str, Any]) -> None:
    for name, value, usual in (
        ("kernel", extension.get("kernel"), "ellipse"),
        ("colour space", extension.get("colorSpace"), _COLOR_SPACE),
        ("primitive mode", primitive.get("mode"), 0),
    ):
        if value is not None and value != usual:
            warn(path, f"{name} {str(value)[:40]!r} is read as if it were {usual!r}")


def _linear_scales(path: Path, scales: np.ndarray) -> np.ndarray:
    """Scales as they are; the exponential of them when most are negative (a draft of the extension)."""
    if len(scales) and (scales < 0).mean() > 0.5:
        warn(path, f"scales are mostly negative; read as log-scales of a draft of {EXTENSION}")
        with np.errstate(over="ignore"):
            return np.exp(scales)
    return positive_scales(path, scales)


def _checked_opacities(path: Path, opacities: np.ndarray) -> np.ndarray:
    outside = np.abs(opacities - np.float32(0.5)) > 0.5 + _OPACITY_ERROR
    if outside.any():
        got = (
            f"{int(outside.sum()):,} of {len(opacities):,} outside, from {np.nanmin(opacities):.4g} to "
            f"{np.nanmax(opacities):.4g}"
        )
        raise FormatError(path, "opacities must lie in [0, 1]", got, "apply a sigmoid if these are logits")
    return np.clip(opacities, 0, 1)


def _higher_sh(document: Document, attributes: dict[str, Any], count: int) -> np.ndarray:
    """``[N, K-1, 3]``; a degree has all of its coefficients, and all lower degrees, or is broken."""
    names = [f"{EXTENSION}:SH_DEGREE_{l}_COEF_{n}" for l in (1, 2, 3) for n in range(2 * l + 1)]  # noqa: E741
    present = [name in attributes for name in names]
    number = sum(present)
    if number not in SH_COEFFICIENTS or not all(present[:number]):
        missing = names[present.index(False)]
        raise FormatError(document.path, "SH degrees must be complete, lower ones first", f"no {missing}")
    if number == 0:
        return no_sh(count)
    columns = [document.attribute(attributes, name, 3) for name in names[:number]]
    if len({len(column) for column in columns}) != 1:
        raise FormatError(document.path, "SH coefficients must have one count", "several")
    return np.stack(columns, axis=1)
