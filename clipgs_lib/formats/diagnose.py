"""The splat doctor: says what a file is, what is wrong or suspicious, and how to mend it.

Nothing here is a proof. Every threshold is a named constant, set so that the real files at hand (captures, generated
objects, all formats) pass with room to spare, and each finding gives the numbers behind it.
"""

import os
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..geometry import SH_C0
from . import doctor_checks as checks
from . import ply, splat
from .choose import FORMATS, HEAD_BYTES, sniff, write_splats
from .doctor_report import SEVERITIES, Diagnosis, Finding
from .ply_table import read_header
from .raw import FormatError, RawSplats, SplatWarning, check_regular_file, to_splats

_MAGIC = (
    (b"ply", "a PLY file"), (b"glTF", "a GLB file"), (b"\x89PNG", "a PNG picture"), (b"\xff\xd8\xff", "a JPEG picture"),
    (b"RIFF", "a RIFF file (WebP, WAV)"), (b"%PDF", "a PDF"), (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a numpy array"),
    (b"PK\x03\x04", "a zip archive"), (b"BZh", "a bzip2 archive"), (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"), (b"Rar!", "a RAR archive"), (b"\x28\xb5\x2f\xfd", "a zstd stream"),
    (b"\x1f\x8b", "a gzip stream"), (b"# Blender", "an OBJ mesh"), (b"solid ", "an STL mesh"),
    (b"Kaydara FBX", "an FBX mesh"), (b"BLENDER", "a Blender file"),
)  # fmt: skip
_ARCHIVES = ("zip", "bzip2", "xz", "7-Zip", "RAR", "zstd", "gzip")
_TURNS = {  # that bring an axis up to +y
    "-y": "180 degrees about z", "+z": "-90 degrees about x", "-z": "90 degrees about x",
    "+x": "90 degrees about z", "-x": "-90 degrees about z",
}  # fmt: skip


@dataclass
class _Patient:
    """What is known of the file so far."""

    path: Path
    format: str | None = None
    raw: RawSplats | None = None  # What was read, repairs that values need already applied
    count: int | None = None
    findings: list[Finding] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)  # What ``fix`` does, a sentence each
    bounds: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    up_guess: str = "unknown"

    def report(self, code: str, severity: str, message: str, mend: str = "", repair: str = "") -> None:
        """Add a finding, and what ``fix`` does about it."""
        self.findings.append(Finding(code, severity, message, mend, fixable=bool(repair)))
        self.repairs += [repair] if repair else []


def diagnose(path: str | os.PathLike[str], *, fix: str | os.PathLike[str] | None = None) -> Diagnosis:
    """Say what a file is, what is wrong or suspicious with it, and how to mend it.

    A file that cannot be read is a finding, not an exception. Statistics on neighbours use at most 200,000 centres.

    Args:
        path: a splat file of any format, the folder of an unpacked SOG, or what somebody took for one.
        fix: where to write a repaired copy, in the format of that name. Only safe repairs are made: gaussians that
            are not finite or have no rotation are dropped, quaternions normalised, opacities and scales that were
            activated twice and colours stored as RGB set right, the whole gaussians of a truncated PLY or .splat
            kept, bytes after the last one left out. Moving, cropping or turning is never done silently. Nothing is
            written when none applies.

    Returns:
        The `Diagnosis`; ``print`` it, or let a notebook show it.

    Raises:
        FormatError: when ``path`` does not exist, or ``fix`` cannot be written.
        ValueError: when ``fix`` is ``path`` itself.
    """
    path = Path(path)
    if not os.path.lexists(path):
        check_regular_file(path)
    if fix is not None and Path(fix).exists() and Path(fix).samefile(path):
        raise ValueError(f"fix must be another path than the file itself, got {os.fspath(fix)!r}; the input is kept")
    patient = _Patient(path)
    _read(patient)
    if patient.raw is not None:
        _examine(patient, patient.raw)
    written = _repair(patient, Path(fix)) if fix is not None and patient.repairs else None
    raw = patient.raw
    return Diagnosis(
        path=str(path),
        format=patient.format,
        count=patient.count,
        sh_degree=None if raw is None else {0: 0, 3: 1, 8: 2, 15: 3}[raw.shN.shape[1]],
        bytes=sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]) if file.is_file()),
        bounds=patient.bounds,
        up_guess=patient.up_guess,
        notes=() if raw is None else tuple(raw.notes),
        findings=tuple(sorted(patient.findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        fixed=tuple(patient.repairs) if written is not None else (),
        fixed_path=written,
    )


def _read(patient: _Patient) -> None:
    """Find the format and read it; refusals and warnings become findings."""
    path, head = patient.path, b""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if not path.is_dir():
                with check_regular_file(path).open("rb") as stream:
                    head = stream.read(HEAD_BYTES)
            patient.format = sniff(path)
            patient.raw = FORMATS[patient.format].read(path)
        except FormatError as error:
            code, message, mend = _explain(path, head, error)
            if patient.format == "points":
                patient.format = None
            if (
                code == "truncated" and patient.format is not None
            ):  # go on with the whole gaussians, if the layout allows
                with suppress(FormatError):
                    patient.raw = _salvage(path, patient.format)
            if patient.raw is None:
                patient.report(code, "error", message, mend)
            else:
                whole = f"{len(patient.raw.means):,} whole gaussians"
                repair = f"kept the {whole} of a truncated file"
                patient.report(code, "error", f"{message}; {whole} are there", mend, repair)
        except OSError as error:
            mend = "check the disk and the permissions"
            patient.report("unreadable", "error", f"the file cannot be read: {error}", mend)
    for warning in caught:
        if issubclass(warning.category, SplatWarning):
            patient.report("reader_warning", "warning", str(warning.message).removeprefix(f"{path}: "))
    if patient.raw is not None:
        patient.count = len(patient.raw.means)
        _check_ply(patient, patient.raw)


def _explain(path: Path, head: bytes, error: FormatError) -> tuple[str, str, str]:
    """Code, message and remedy of a reader's refusal, or what the first bytes say instead."""
    if head.startswith(b"\x1f\x8b") and (inner := _gzip_head(head)):
        mend = f"unpack it first: gunzip -c {path.name} > {path.stem}"
        return "gzip_wrapped", f"a gzip stream around {looks_like(inner) or 'something else than SPZ'}", mend
    kind = looks_like(head)
    if error.code != "unknown_format" or not kind:
        return error.code, error.reason, error.todo
    if any(word in kind for word in _ARCHIVES):
        return "archive", f"{kind}, not a splat file", "unpack it and pass the file inside"
    return "unknown_format", f"{kind}, not a splat file", error.todo


def looks_like(head: bytes) -> str:
    """What the first bytes say in words; empty when they say nothing."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def _gzip_head(head: bytes) -> bytes:
    """The first bytes inside a gzip stream, unless they are SPZ; empty when it is broken."""
    try:
        inner = zlib.decompressobj(31).decompress(head, 64)
    except zlib.error:
        return b""
    return b"" if inner.startswith(b"NGSP") else inner


def _salvage(path: Path, format: str) -> RawSplats | None:
    """The whole gaussians of a truncated binary INRIA PLY or ``.splat``; None when there is none."""
    size = path.stat().st_size
    if format == splat.NAME:
        return splat.decode(path, size // splat.RECORD.itemsize) if size >= splat.RECORD.itemsize else None
    if format != ply.NAME:
        return None
    header = read_header(path)
    vertex, *others = header.elements
    if vertex.name != "vertex" or header.byte_order == "" or vertex.has_lists:
        return None
    count = (size - header.size) // max(vertex.least_row_bytes, 1)
    elements = [replace(vertex, count=count), *(replace(other, count=0) for other in others)]
    return ply.decode(replace(header, elements=elements)) if count > 0 else None


def _check_ply(patient: _Patient, raw: RawSplats) -> None:
    """What only PLY files show: bytes after the rows, and that no SH property is there."""
    whole = not any(finding.code == "truncated" for finding in patient.findings)
    if whole and raw.trailing:
        mend = "readers ignore them; the count in the header may be too small, or two files were joined"
        repair = f"left out {raw.trailing:,} bytes after the last gaussian"
        patient.report("trailing_bytes", "warning", f"{raw.trailing:,} bytes follow the last gaussian", mend, repair)
    if patient.format == "ply" and raw.shN.shape[1] == 0:
        message = "no f_rest properties: colours do not change with the view (SH degree 0)"
        patient.report("no_view_dependence", "info", message)


def _examine(patient: _Patient, raw: RawSplats) -> None:
    """Look at the values; repairs that they need are applied to ``patient.raw``."""
    findings = patient.findings
    if len(raw.means) == 0:
        patient.report("no_gaussians", "error", "the file holds 0 gaussians", "export it again")
        return
    non_finite, zero = checks.broken_rows(raw)
    findings += checks.check_rows(non_finite, zero)
    broken = non_finite | zero
    if broken.all():
        return
    if broken.any():
        patient.repairs.append(f"dropped {int(broken.sum()):,} gaussians that are not finite or have no rotation")
        raw = raw.rows(~broken)
    extent = checks.Extent.of(raw.means)
    low, high = (tuple(map(float, end)) for end in (raw.means.min(axis=0), raw.means.max(axis=0)))
    patient.bounds = ((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    near = checks.Neighbours.of(raw.means)
    raw = patient.raw = _activations(patient, raw, near)
    findings += checks.check_opacities(raw.opacities)
    findings += checks.check_colors(raw.sh0)
    findings += checks.check_shapes(raw.scales, raw.opacities, extent)
    findings += checks.check_place(raw.means, raw.scales, extent)
    findings += checks.check_duplicates(raw)
    if near is not None:
        findings += checks.check_sizes(raw.scales, near)
        findings += checks.check_floaters(raw.means, extent, near)
        findings += checks.check_alignment(raw.quats, raw.scales, near)
        _up(patient, raw, extent)


def _activations(patient: _Patient, raw: RawSplats, near: checks.Neighbours | None) -> RawSplats:
    """Undo a sigmoid or exponential that was probably applied twice, and colours stored as RGB; say so."""

    def activated(what: str, stored: str, numbers: str) -> None:
        message = f"the {what} were probably activated before saving: read as {stored} {numbers}"
        mend, repair = f"save {stored} (Splats and write_splats do it for you)", f"took the stored {what} as {what}"
        patient.report(f"activated_{what}", "error", message, mend, f"{repair}, not as {stored}")

    opacities = checks.before_sigmoid(raw.opacities)
    if opacities is not None:
        numbers = f"they all fall between {raw.opacities.min():.2f} and {raw.opacities.max():.2f}; "
        numbers += f"taken as they are, between {opacities.min():.2g} and {opacities.max():.2g}"
        activated("opacities", "logits", numbers)
        raw = replace(raw, opacities=opacities, clean=False)
    scales = None if near is None else checks.before_exponential(raw.scales, near)
    if near is not None and scales is not None:
        numbers = f"their median is {np.median(raw.scales):.3g}, taken as they are {np.median(scales):.3g}; "
        activated("scales", "logarithms", numbers + f"the gaps between neighbours are {near.spacing:.3g}")
        raw = replace(raw, scales=scales, clean=False)
    sh0 = checks.before_sh(raw.sh0)
    if sh0 is not None:
        low, high = (0.5 + SH_C0 * float(end) for end in (raw.sh0.min(), raw.sh0.max()))
        message = f"the colours were probably stored as RGB: read as SH they all lie between {low:.2f} and {high:.2f}"
        mend = "save SH coefficients, (colour - 0.5) / 0.2821 (Splats.from_colors does it for you)"
        patient.report("rgb_as_sh", "warning", message, mend, "took the stored f_dc as RGB colours, not as SH")
        raw = replace(raw, sh0=sh0)
    return raw


def _up(patient: _Patient, raw: RawSplats, extent: checks.Extent) -> None:
    guess, stated = checks.guess_up(extent), raw.up_axis
    patient.up_guess = guess if guess != "unknown" else stated
    if guess == "unknown":
        if stated == "unknown":
            message = "the file does not say which way is up, and the geometry gives no clear sign"
            mend = "look at it once, and set it: dataclasses.replace(splats, up_axis=...)"
            patient.report("up_unknown", "info", message, mend)
        return
    name, mend = guess.replace("-", "−"), ""
    message = f"probably {name} is up (it stands on the plane {guess[1]} = 0)"
    if guess != "+y":
        message += f"; viewers that take +y as up show it {'upside down' if guess == '-y' else 'lying down'}"
        mend = f"turn it by {_TURNS[guess]} for those: Splats.rotate"
    patient.report("up_axis", "info", message, mend)
    if stated not in ("unknown", guess):
        message = f"the format's frame has {stated.replace('-', '−')} up, yet the object stands as if {name} were"
        patient.report("up_contradiction", "info", message, "the converter may not have turned it")


def _repair(patient: _Patient, target: Path) -> str | None:
    """Write the repaired copy; its path, or None when nothing is left to write."""
    if patient.raw is None or len(patient.raw.means) == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SplatWarning)  # they are findings already
        splats = to_splats(patient.raw, patient.path)
    lengths = np.linalg.norm(patient.raw.quats, axis=1)
    if np.abs(lengths - 1).max(initial=0) > 1e-4:
        patient.repairs.append("normalised the quaternions")
    return str(write_splats(splats, target))
