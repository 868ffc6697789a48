"""The standing test of sense: 40 everyday questions to a set, by words, by a picture and by both.

    python tests/benchmarks/bench_sense.py SET [--queries data/queries/kits.json] [--galleries DIR] [--out FILE]

Embeds the set by clipgs-mini, duoduo-mini and as bags of views (what lies in --galleries already stays), and prints and
writes the table that notebook 07 shows; `data/results/retrieval_sense.json` is that of the CC0 kits.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from pathlib import Path

import clipgs_lib as cg
from clipgs_lib.files import write_text
from clipgs_lib.gallery import sense_rows
from clipgs_lib.gallery.embedding import embed_gallery

ENCODERS = ("clipgs-mini", "duoduo-mini", "bag-mean")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("set", type=Path)
    parser.add_argument("--queries", type=Path, default=Path("data/queries/kits.json"))
    parser.add_argument("--galleries", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, galleries = given.galleries or Path(temporary), {}
        for name in ENCODERS:
            print(embed_gallery(given.set, folder / name, encoder=name))
            galleries[name] = cg.Gallery.open(folder / name)
        rows = sense_rows(galleries, cg.load_teacher("mini"), json.loads(given.queries.read_text()))
    for row in rows:
        shares = [f"{name} {100 * row[name]:.0f} %" for name in ("precision@5", "any right")]
        print(f"{row['index']:12} {row['asked by']:10} {row['questions']:3} questions  {'  '.join(shares)}")
    if given.out:
        command = f"python tests/benchmarks/bench_sense.py {given.set.name} --queries data/queries/{given.queries.name}"
        identities = {name: gallery.encoder for name, gallery in galleries.items()}
        result = {"command": command, "date": str(datetime.date.today()), "encoders": identities, "rows": rows}
        write_text(given.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
