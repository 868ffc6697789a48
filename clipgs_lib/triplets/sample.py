"""Build the embedded sample: ``python -m clipgs_lib.triplets.sample --out data/triplets/sample --raw build/sample``.

The same command goes on after a stop. With another teacher in place of the old one, remove ``--out`` and run it again:
the fits in ``--raw`` are used as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from .embedded import FOLDER, OBJECTS, build_sample_set


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m clipgs_lib.triplets.sample", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the sample")
    parser.add_argument("--raw", type=Path, default=Path("build/sample"), help="folder of the fits")
    parser.add_argument("--teacher", default="mini")
    parser.add_argument("--objects", type=int, default=OBJECTS, help="the first so many of the catalogue")
    parser.add_argument("--workers", type=int, default=1, help="processes that fit")
    given = parser.parse_args(arguments)
    with tqdm(unit="object", disable=not sys.stderr.isatty()) as bar:

        def show(done: int, total: int, aside: int) -> None:
            bar.n, bar.total = done, total
            bar.refresh()

        report = build_sample_set(
            given.out,
            given.raw,
            teacher=given.teacher,
            objects=given.objects,
            workers=given.workers,
            progress=show,
        )
    size = sum(path.stat().st_size for path in given.out.iterdir())
    print(f"{report}\n{size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
