"""The standing test of sense: everyday questions to a set, by words, by a picture and by both.

    python tests/benchmarks/bench_sense.py SET --queries data/queries/kits.json --out data/results/retrieval_sense.json
    python tests/benchmarks/bench_sense.py SET --queries data/queries/furniture.json \\
        --out data/results/retrieval_sense_furniture.json

Embeds the set by clipgs-mini, duoduo-mini and as bags of views (what lies in --galleries already stays), prints the
table, and writes what notebook 07 shows. SET may be a folder of meshes, with --labels FILE for the kits; a set must
hold each object once, as copies (`clipgs triplets build --copies`) would be right answers of their own.
Questions with a photograph are asked by it where CLIPGS_REAL_DATA has it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from pathlib import Path

import clipgs_lib as cg
from clipgs_lib import runtime
from clipgs_lib.files import write_text
from clipgs_lib.gallery import read_questions, sense_rows
from clipgs_lib.gallery.embedding import embed_gallery

ENCODERS = ("clipgs-mini", "duoduo-mini", "bag-mean")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("set", type=Path, nargs="?")
    parser.add_argument("--queries", type=Path, default=Path("data/queries/kits.json"))
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--galleries", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.set is None:  # make bench
        print("needs a set that the questions were written for: see --help")
        return
    photos = next(iter(runtime.real_files("photos")), None)
    with tempfile.TemporaryDirectory() as temporary:
        folder, galleries = given.galleries or Path(temporary), {}
        for name in ENCODERS:
            print(embed_gallery(given.set, folder / name, encoder=name, labels=given.labels))
            galleries[name] = cg.Gallery.open(folder / name)
        rows = sense_rows(galleries, cg.load_teacher("mini"), read_questions(given.queries), photos)
    for row in rows:
        shares = [f"{name} {100 * row[name]:.0f} %" for name in ("precision@5", "any right")]
        asked = f"{row['questions']} questions, {row['photographs']} by photograph"
        print(f"{row['index']:12} {row['asked by']:10} {asked}  {'  '.join(shares)}")
    if given.out:
        command = f"python tests/benchmarks/bench_sense.py {given.set.name} --queries data/queries/{given.queries.name}"
        identities = {name: gallery.encoder for name, gallery in galleries.items()}
        about = {"command": command, "date": str(datetime.date.today()), "objects": len(galleries[ENCODERS[0]])}
        result = about | {"encoders": identities, "rows": rows}
        write_text(given.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
