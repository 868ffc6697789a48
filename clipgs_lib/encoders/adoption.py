"""Taking over weights strictly: every tensor has to go somewhere, every parameter has to come from somewhere."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .configs import EncoderError
from .encoder import Encoder

_BLOCK = re.compile(r"\b(blocks|layers|resblocks|cross)\.\d+\.")
_HEAD = ("from", "to", "shape", "tensors", "what became of it")


@dataclass(frozen=True)
class Row:
    """One tensor, or the same one of every block."""

    source: str  # name in the file, blocks as "*"; "" for a parameter that the file has nothing for
    target: str  # name in the encoder; "" for a tensor that is left in the file
    shape: tuple[int, ...]  # of one tensor
    count: int  # tensors that this row stands for
    note: str  # "copied", or why not


@dataclass(frozen=True)
class Adoption:
    """What went where when an encoder took over weights; prints as a table."""

    title: str  # file or encoder that the weights come from, and where they went
    rows: tuple[Row, ...]  # in the order of the file, new parameters last

    @property
    def copied(self) -> int:
        """Tensors taken over."""
        return sum(row.count for row in self.rows if row.source and row.target)

    @property
    def left(self) -> int:
        """Tensors of the file that the encoder has no use for."""
        return sum(row.count for row in self.rows if not row.target)

    @property
    def new(self) -> int:
        """Tensors of the encoder that keep their initial values."""
        return sum(row.count for row in self.rows if not row.source)

    @property
    def summary(self) -> str:
        """One line."""
        return f"{self.title}: {self.copied} tensors copied, {self.left} left in the file, {self.new} new"

    def __str__(self) -> str:
        cells = [_HEAD, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(_HEAD))]
        lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in cells]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self.summary, *(line.rstrip() for line in lines)])

    def _repr_html_(self) -> str:
        def line(tag: str, texts: Sequence[str]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts) + "</tr>"

        body = "".join(line("td", _cells(row)) for row in self.rows)
        caption = f"<caption>{html.escape(self.summary)}</caption>"
        return f"<table>{caption}<thead>{line('th', _HEAD)}</thead><tbody>{body}</tbody></table>"


def adopt(
    encoder: Encoder,
    state: Mapping[str, Tensor],
    *,
    title: str,
    rename: Callable[[str], str],
    unused: Mapping[str, str],
    fresh: Mapping[str, str],
) -> Adoption:
    """Copy ``state`` into ``encoder``; nothing is changed when anything does not fit.

    Args:
        encoder: gets the values, in its own precision.
        state: name -> tensor.
        title: says what comes from where, for messages and the table.
        rename: name in ``state`` -> name in the encoder.
        unused: pattern (matching the whole name in ``state``) -> why such a tensor is left out.
        fresh: beginning of names in the encoder -> why such a parameter may keep its initial values.

    Raises:
        EncoderError: naming tensors without a place, parameters without a value, other shapes, values not finite.
    """
    expected = encoder.state_dict()
    rows, taken, faults = [], {}, []
    for key, tensor in state.items():
        reason = next((why for pattern, why in unused.items() if re.fullmatch(pattern, key)), None)
        if reason is not None:
            rows.append(Row(key, "", tuple(tensor.shape), 1, reason))
            continue
        target = rename(key)
        fault = _fault(tensor, expected.get(target), taken=target in taken)
        if fault:
            faults.append(f"{key} {fault}")
        taken[target] = tensor
        rows.append(Row(key, target, tuple(tensor.shape), 1, "copied"))
    for key, tensor in expected.items():
        if key not in taken:
            reason = next((why for start, why in fresh.items() if key.startswith(start)), None)
            if reason is None:
                faults.append(f"nothing is there for {key}")
            else:
                rows.append(Row("", key, tuple(tensor.shape), 1, reason))
    if faults:
        more = f"; and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise EncoderError(f"{title}: every tensor must have its place, but {'; '.join(faults[:4])}{more}")
    encoder.load_state_dict({**expected, **taken})
    return Adoption(title, tuple(_gathered(rows)))


def _fault(tensor: Tensor, place: Tensor | None, *, taken: bool) -> str:
    if place is None:
        return "has no place in this encoder (another size or kind of model?)"
    if taken:
        return "is there twice, under two names"
    if tensor.shape != place.shape:
        return f"has shape {list(tensor.shape)}, not {list(place.shape)}"
    if not tensor.is_meta and not bool(torch.isfinite(tensor).all()):
        return "is not finite"
    return ""


def _gathered(rows: Sequence[Row]) -> list[Row]:
    """Rows of all blocks as one, at the place of the first."""
    groups: dict[tuple[str, str, tuple[int, ...], str], int] = {}
    for row in rows:
        key = (_BLOCK.sub(r"\1.*.", row.source), _BLOCK.sub(r"\1.*.", row.target), row.shape, row.note)
        groups[key] = groups.get(key, 0) + row.count
    return [Row(source, target, shape, count, note) for (source, target, shape, note), count in groups.items()]


def _cells(row: Row) -> tuple[str, ...]:
    shape = "x".join(map(str, row.shape)) or "1"
    return row.source or "-", row.target or "-", shape, str(row.count), row.note
