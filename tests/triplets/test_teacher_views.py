"""Views for a teacher: what is drawn, what is listed, what goes on after a stop."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from clipgs_lib import catalogue
from clipgs_lib.cli import app
from clipgs_lib.training.mini_views import read_views
from clipgs_lib.triplets import catalogue_sources, folder_sources
from clipgs_lib.triplets.teacher_views import write_teacher_views


def test_catalogue_objects_are_cut_out_and_keep_their_split(tmp_path):
    report = write_teacher_views(catalogue_sources(12), tmp_path, views=3, size=32)
    assert (report.objects, report.left_out) == (12, ())
    views = read_views(tmp_path)
    for index, viewed in enumerate(views.objects):
        made = catalogue.make(index)
        assert (viewed.label, viewed.split, len(viewed.files)) == (made.category, made.split, 3)
        assert made.captions[-1].text in viewed.texts and made.category not in viewed.texts
    picture = views.read(views.objects[0].files[0], 32)
    assert picture.shape == (32, 32, 4)
    assert picture[0, 0, 3] == 0 and picture[..., 3].max() == 255
    solid = picture[picture[..., 3] == 255][:, :3]
    assert solid.mean() > 20  # straight alpha: colours, not black


def test_a_second_run_keeps_the_pictures_and_gives_the_same_index(tmp_path):
    sources = catalogue_sources(6)
    write_teacher_views(sources, tmp_path, views=2, size=32)
    index = (tmp_path / "views.jsonl").read_bytes()
    kept, lost = (tmp_path / name for name in json.loads(index.splitlines()[0])["files"])
    lost.unlink()
    stamp = (tmp_path / json.loads(index.splitlines()[1])["files"][0]).stat().st_mtime_ns
    write_teacher_views(sources, tmp_path, views=2, size=32)
    assert lost.is_file() and kept.is_file()
    assert (tmp_path / "views.jsonl").read_bytes() == index
    assert (tmp_path / json.loads(index.splitlines()[1])["files"][0]).stat().st_mtime_ns == stamp


def test_meshes_need_labels_and_twins_share_a_split(tmp_path):
    box = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 0 2\nf 1 2 3\nf 1 2 4\n"
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    for name in ("a", "b", "c"):
        (meshes / f"{name}.obj").write_text(box)
    (meshes / "broken.obj").write_text("f 1 2 3\n")
    table = tmp_path / "table.csv"
    table.write_text("path,label\na.obj,Chair\nb.obj,table\nbroken.obj,lamp\n")
    report = write_teacher_views(folder_sources(meshes, labels=table), tmp_path / "out", views=2, size=32)
    rows = [json.loads(line) for line in (tmp_path / "out" / "views.jsonl").read_text().splitlines()]
    assert {row["label"] for row in rows} == {"chair", "table"}
    assert len({row["split"] for row in rows}) == 1 and len({row["group"] for row in rows}) == 1
    reasons = " ".join(reason for _, reason in report.left_out)
    assert len(report.left_out) == 2 and "with a label" in reasons


def test_nothing_left_is_an_error(tmp_path):
    (tmp_path / "x.obj").write_text("v 0 0 0\n")
    with pytest.raises(ValueError, match="at least one object must have views, got none of 1"):
        write_teacher_views(folder_sources(tmp_path), tmp_path / "out", views=2, size=32)
    assert not (tmp_path / "out" / "views.jsonl").exists()


@pytest.mark.filterwarnings("ignore:.*a table of labels must fit")
def test_the_command_draws_and_says_what_is_left_out(tmp_path):
    command = ["teacher", "views", "--views", "2", "--size", "32"]
    ran = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "six"), "--catalogue", "6"])
    assert ran.exit_code == 0 and "six: 6 objects, 0 left out" in ran.stdout.replace("\n", "")
    assert len(read_views(tmp_path / "six").objects) == 6
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    for name in ("a", "b"):
        (meshes / f"{name}.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 3\n")
    (tmp_path / "table.csv").write_text("path,label\na.obj,chair\n")
    command += ["--meshes", str(meshes), "--labels", str(tmp_path / "table.csv"), "--out", str(tmp_path / "out")]
    some = CliRunner().invoke(app, command)
    assert some.exit_code == 1 and "1 objects, 1 left out" in some.stdout
    both = CliRunner().invoke(app, [*command, "--catalogue", "3"])
    assert both.exit_code == 2 and "exactly one of --meshes and --catalogue is needed" in both.stderr
