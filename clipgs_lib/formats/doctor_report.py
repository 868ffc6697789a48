"""What `diagnose` hands back: findings, and the sheet that lists them."""

import textwrap
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

SEVERITIES = ("error", "warning", "info")
WIDTH = 110
_MARKS = {"error": "✗", "warning": "!", "info": "·"}
_COLORS = {"error": "#c4433a", "warning": "#b07b00", "info": "#7a808a"}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a file, suspicious, or worth knowing."""

    code: str  # A fixed word to test for, as ``"zero_quaternions"``
    severity: str
    """``"error"``: unreadable, or what is read is wrong. ``"warning"``: suspicious, or part of it is lost.
    ``"info"``: worth knowing."""
    message: str  # What was found, with numbers
    mend: str  # What to do about it; empty when there is nothing to do
    fixable: bool = False  # Whether ``diagnose(path, fix=OUT)`` mends it


@dataclass(frozen=True)
class Diagnosis:
    """What a file is, and what is wrong with it."""

    path: str  # The file, as it was given
    format: str | None  # A name in `clipgs_lib.formats.FORMATS`; None when it is none of them
    count: int | None  # Gaussians in the file, broken ones included; None when it could not be read
    sh_degree: int | None  # 0 to 3
    bytes: int  # Size of the file, or of all files of a folder
    bounds: tuple[tuple[float, float, float], tuple[float, float, float]] | None
    """Low and high corner of the finite centres, scene units."""
    up_guess: str  # Which way is probably up, as in ``Splats.up_axis``; ``"unknown"`` when the file gives no sign
    notes: tuple[str, ...]  # What the reader remarked: version, compression, what it ignored
    findings: tuple[Finding, ...]  # Errors first
    fixed: tuple[str, ...] = ()  # What the repair did, a sentence each
    fixed_path: str | None = None
    """Where the repaired copy lies; None when none was asked for, or nothing could be repaired."""

    @property
    def ok(self) -> bool:
        """Whether there is no finding of severity "error"."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of all findings."""
        return tuple(finding.code for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types."""
        return asdict(self) | {"ok": self.ok, "findings": [asdict(finding) for finding in self.findings]}

    def headline(self) -> str:
        """What the file is, in one line."""
        parts = [self.format or "unknown format"]
        if self.count is not None:
            parts.append(f"{self.count:,} gaussian" + ("" if self.count == 1 else "s"))
        if self.sh_degree is not None:
            parts.append(f"SH degree {self.sh_degree}")
        parts.append(_size(self.bytes))
        if self.bounds is not None:
            sides = (high - low for low, high in zip(*self.bounds, strict=True))
            parts.append("extent " + " × ".join(f"{side:.3g}" for side in sides))
        return ", ".join(parts)

    def __str__(self) -> str:
        lines = [Path(self.path).name or self.path, "  " + self.headline()]
        for note in self.notes:
            lines += _wrapped("  ", note)
        for finding in self.findings:
            lines += _wrapped(f"  {_MARKS[finding.severity]} {finding.severity}: ", finding.message)
            if finding.mend:
                lines += _wrapped("      → ", finding.mend + ("  [fixable]" if finding.fixable else ""))
        if not self.findings:
            lines.append("  nothing wrong found")
        for done in self.fixed:
            lines += _wrapped("  fixed: ", done)
        if self.fixed_path is not None:
            lines += _wrapped("  written: ", self.fixed_path)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cell = "padding:3px 10px 3px 0;vertical-align:top;text-align:left;border:none"
        rows = "".join(
            f'<tr style="background:none"><td style="{cell};color:{_COLORS[f.severity]};font-weight:600">{f.severity}'
            f'</td><td style="{cell};font-family:monospace">{escape(f.code)}</td>'
            f'<td style="{cell};white-space:normal">{escape(f.message)}'
            f'<div style="opacity:.7">{escape(f.mend)}{" <b>[fixable]</b>" if f.fixable else ""}</div></td></tr>'
            for f in self.findings
        )
        rows = rows or f'<tr><td style="{cell}">nothing wrong found</td></tr>'
        written = [f"written: {self.fixed_path}"] if self.fixed_path else []
        notes, done = (
            "".join(f'<div style="opacity:.7">{escape(text)}</div>' for text in texts)
            for texts in (self.notes, [*(f"fixed: {text}" for text in self.fixed), *written])
        )
        return (
            f'<div style="max-width:72em"><b>{escape(Path(self.path).name or self.path)}</b>'
            f"<div>{escape(self.headline())}</div>{notes}"
            f'<table style="border-collapse:collapse;font:inherit;color:inherit">{rows}</table>{done}</div>'
        )


def _wrapped(lead: str, text: str) -> list[str]:
    hang = " " * (6 if lead.strip() else len(lead))
    return textwrap.wrap(text, WIDTH, initial_indent=lead, subsequent_indent=hang, break_long_words=False) or [lead]


def _size(count: int) -> str:
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            return f"{count / 1000**power:.3g} {unit}"
    return f"{count} bytes"
