"""Summary and contact sheet of a set: what they say is so, and nothing in a set can break out of the page."""

from __future__ import annotations

import html.parser
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clipgs_lib.captions.caption import Caption
from clipgs_lib.cli import app
from clipgs_lib.shards.shard_set import ShardSet
from clipgs_lib.shards.triplet import encode_triplet
from clipgs_lib.shards.writer import write_set
from clipgs_lib.triplets.inspection import choose, filter_totals, spread, summarize, write_contact_sheet

from ..shards.shard_samples import make_set, make_triplet

NASTY = "<script>alert('x')</script><img src=x onerror=alert(1)>"


class Tags(html.parser.HTMLParser):
    """Counts tags and gathers what is shown."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.shown = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.shown += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_set(tmp_path_factory.mktemp("inspect") / "set")


def test_the_summary_says_what_is_there(folder):
    summary = summarize(folder)
    assert (summary.objects, summary.shards, summary.splits) == (21, 5, {"train": 17, "val": 4})
    assert summary.bytes == sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert summary.categories == {"kind0": 7, "kind1": 7, "kind2": 7}
    assert (summary.gaussians, summary.views, summary.texts) == ((20, 20, 20), (2, 2, 2), (3, 3, 3))
    assert summary.sources == {"raw": 21, "filtered": 21, "enriched": 21}
    assert summary.psnr == (21.0, 30.0, 39.0) and summary.measured == 21
    blocks = sum(row["bytes"] for row in ShardSet(folder).rows) / 21
    assert sum(summary.parts.values()) == pytest.approx(blocks) and summary.parts["embeddings"] == 5 * 16 * 2
    words = str(summary)
    for sentence in ("21 objects in 5 shards", "train 17, val 4", "stand-in/1 (D = 16)", "21.00 / 30.00 / 39.00 dB"):
        assert sentence in words
    assert "set aside   0" in words


def test_a_set_with_nothing_in_it(tmp_path):
    write_set(tmp_path, [], build={})
    words = str(summarize(tmp_path))
    assert "0 objects in 0 shards" in words and "not measured" in words and "none, no embeddings" in words
    assert "0 of 0 objects" in write_contact_sheet(tmp_path).read_text()


def test_the_sheet_holds_pictures_and_no_links_out(folder, tmp_path):
    path = write_contact_sheet(folder, tmp_path / "sheet.html")
    page = Tags(path.read_text())
    assert page.tags.count("article") == 21 and page.tags.count("img") == 2 * 21
    assert all(link.startswith("data:") for link in page.links) and "script" not in page.tags
    assert "prefers-color-scheme: dark" in path.read_text()
    assert "ein Becher 🍵" in page.shown and "kind2" in page.shown and "0.30" in page.shown
    assert not list(folder.glob("*.html"))


def test_nothing_in_a_set_becomes_markup(tmp_path):
    texts = (Caption(NASTY, "raw"), Caption("عربة حمراء", "filtered"), Caption("long " * 3_000, "enriched"))
    triplet = make_triplet(1, texts=texts, category=NASTY, provenance={"licence": NASTY, "source": NASTY})
    write_set(tmp_path, [encode_triplet(triplet)], build={"config": {"teacher": NASTY}})
    entry = {"key": "x", "source": NASTY, "reason": NASTY, "place": ""}
    (tmp_path / "quarantine.jsonl").write_text(json.dumps(entry) + "\n")
    path = write_contact_sheet(tmp_path)
    page = Tags(path.read_text())
    assert "script" not in page.tags and page.tags.count("img") == 2 and NASTY in page.shown
    assert "عربة حمراء" in page.shown and len(page.shown) < 8_000 and "1 set aside" in page.shown


REPORTS = (
    {"kept": 2, "changed": 1, "removed": {"pack-name": 1, "id": 2}, "texts": [[NASTY, "pack-name"], ["a1b2", "id"]]},
    {"kept": 1, "changed": 0, "removed": {"id": 1}, "texts": [["ffff0000", "id"]]},
    {"kept": 3, "changed": 2, "removed": {}, "texts": []},
)


@pytest.fixture
def filtered(tmp_path) -> Path:
    """Three objects with a report of their filtering, one without."""
    provenance = [{"filter": report} for report in REPORTS] + [{}]
    blocks = [encode_triplet(make_triplet(i, provenance=facts)) for i, facts in enumerate(provenance)]
    write_set(tmp_path, blocks, build={})
    return tmp_path


def test_the_summary_tells_what_filtering_removed(filtered, folder):
    totals = summarize(filtered).filter
    assert (totals.objects, totals.kept, totals.changed) == (3, 6, 3)
    assert totals.removed == {"id": 3, "pack-name": 1} and totals.examples == {"pack-name": NASTY, "id": "a1b2"}
    assert "kept 6 (3 of them changed), removed 4 (id 3, pack-name 1)" in str(summarize(filtered))
    assert "not needed, texts were made with the objects" in str(summarize(folder))


def test_the_sheet_shows_what_filtering_removed(filtered, folder, tmp_path):
    page = Tags(write_contact_sheet(filtered).read_text())
    assert "script" not in page.tags and "4 texts removed from 3 objects" in page.shown
    assert f"removed: {NASTY} (pack-name); a1b2 (id), 1 more" in page.shown
    assert "a hash, UUID or serial number" in page.shown  # what the reason means
    assert page.shown.count("removed: ") == 2
    none = Tags(write_contact_sheet(folder, tmp_path / "none.html").read_text()).shown
    assert "texts removed" not in none and "removed: " not in none


def test_the_sheet_names_what_meshes_lost(tmp_path):
    triplet = make_triplet(1, provenance={"lost": [NASTY]}, texts=(Caption("a cup", "raw", -0.001),))
    odd = make_triplet(2, provenance={"lost": 3})  # which no build writes
    blocks = [encode_triplet(t) for t in (replace(triplet, text_embeds=triplet.text_embeds[:1]), odd)]
    write_set(tmp_path, blocks, build={})
    lost = {"key": triplet.key, "source": "cups/a.obj", "lost": [NASTY]}
    (tmp_path / "lost.jsonl").write_text(json.dumps(lost) + "\n")
    page = Tags(write_contact_sheet(tmp_path).read_text())
    assert f"lost: {NASTY}" in page.shown and "1 object lost a texture or a material" in page.shown
    assert "cups/a.obj" in page.shown and "script" not in page.tags and "-0.00" not in page.shown


@pytest.mark.parametrize(
    "report", ["x", 3, [], {"kept": 1}, REPORTS[0] | {"removed": [1]}, REPORTS[0] | {"texts": [["a", "b", "c"]]}]
)
def test_reports_that_are_none_count_as_nothing(report):
    assert filter_totals([report, None, REPORTS[2]]) == filter_totals([REPORTS[2]])


def test_the_splats_are_drawn_when_the_cameras_are_known(tmp_path):
    cameras = {
        "width": 24,
        "height": 20,
        "fx_fy_cx_cy": [20, 20, 12, 10],
        "viewmats": [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3]] * 2,
    }
    good = make_triplet(1, provenance={"cameras": cameras})
    bad = [
        make_triplet(2 + i, provenance={"cameras": cameras | wrong})
        for i, wrong in enumerate(
            [
                {"width": 10**9},
                {"viewmats": [[1.0] * 12]},
                {"viewmats": "x"},
                {"fx_fy_cx_cy": [0, 0, 0, 0]},
                {"height": None},
            ]
        )
    ]
    write_set(tmp_path, [encode_triplet(t) for t in [good, *bad]], build={})
    assert Tags(write_contact_sheet(tmp_path).read_text()).tags.count("img") == 2 * 6 + 1


def test_a_damaged_object_is_shown_as_such(tmp_path):
    folder = make_set(tmp_path / "set")
    row = ShardSet(folder).rows[3]
    with (folder / row["shard"]).open("r+b") as stream:
        stream.seek(row["offset"] + 600)
        stream.write(b"????")
    assert "damaged     1 of 21" in str(summarize(folder))
    page = Tags(write_contact_sheet(folder).read_text())
    assert page.tags.count("article") == 21 and "object-0003" in page.shown and "another version" in page.shown


def test_choosing_covers_splits_and_categories(folder):
    shards = ShardSet(folder)
    chosen = choose(shards, 6)
    assert {(shards.rows[i]["split"], shards.rows[i]["category"]) for i in chosen} == {
        (split, f"kind{kind}") for split in ("train", "val") for kind in range(3)
    }
    assert len(choose(shards, 3)) == 3 and choose(shards, 100) == list(range(21)) and len(choose(shards, 10)) == 10
    assert spread(10, 3) == [0, 3, 6] and spread(2, 5) == [0, 1] and spread(0, 5) == []


def test_the_command_prints_and_writes(folder, tmp_path):
    ran = CliRunner().invoke(app, ["triplets", "inspect", str(folder), "--html", str(tmp_path / "a.html"), "--verify"])
    assert ran.exit_code == 0 and "21 objects in 5 shards" in ran.stdout and (tmp_path / "a.html").exists()
    ran = CliRunner().invoke(app, ["triplets", "inspect", str(tmp_path)])
    assert ran.exit_code == 2 and "a set must have a manifest" in ran.stderr


def test_verify_names_damage_and_fails(tmp_path):
    folder = make_set(tmp_path / "set")
    with (folder / "val-000000.tar").open("r+b") as stream:
        stream.seek(700)
        stream.write(b"????")
    ran = CliRunner().invoke(app, ["triplets", "inspect", str(folder), "--verify"])
    assert ran.exit_code == 1 and "damaged: val-000000.tar" in ran.stderr and "object-0017" in ran.stderr
