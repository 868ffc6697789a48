"""What tables of labels and builds do with inputs from public bug reports (cases 1, 2, 10)."""

from __future__ import annotations

import shutil
import warnings

import pytest

from clipgs_lib.shards import ShardWarning
from clipgs_lib.triplets import folder_sources

from ..conftest import clipgs

# ---- tables of labels --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["01_labels_paths/labels.csv", "02_labels_encoding/bom.csv"])
def test_backslashes_and_rows_without_files(cases, table):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sources = folder_sources(cases / "01_labels_paths/in", labels=cases / table)
    info = {source.name: source.info for source in sources}
    assert info["sub/a.glb"]["label"] == "chair" and info["sub/a.glb"]["caption"] == "a red, nice chair"
    assert info["b.glb"]["caption"] == "über"
    text = " ".join(str(w.message) for w in caught)
    assert "nope/x.glb" in text and "other.glb" in text and "1 row" in text and "1 file" in text


def test_equal_names_in_two_folders_keep_their_rows(cases, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        shutil.copy(cases / "01_labels_paths/in/b.glb", tmp_path / folder / "a.glb")
    (tmp_path / "labels.csv").write_text("path,label\nx/a.glb,chair\ny/a.glb,table\n")
    sources = folder_sources(tmp_path, labels=tmp_path / "labels.csv")
    assert {s.name: s.info["label"] for s in sources} == {"x/a.glb": "chair", "y/a.glb": "table"}


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_other_encodings_are_read_or_refused(cases, tmp_path, encoding):
    table = tmp_path / "labels.csv"
    table.write_bytes((cases / "01_labels_paths/labels.csv").read_text(encoding="utf-8").encode(encoding))
    try:
        sources = folder_sources(cases / "01_labels_paths/in", labels=table)
    except ValueError as error:
        assert "labels.csv" in str(error) and "UTF-8" in str(error)
        done = clipgs(
            "triplets", "build", "--meshes", cases / "01_labels_paths/in", "--labels", table, "--out", tmp_path / "o"
        )
        assert done.returncode == 2 and "Traceback" not in done.stderr
    else:
        assert {s.name: s.info.get("caption") for s in sources}["b.glb"] == "über"


def test_a_table_of_another_folder_is_refused(cases, tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"no/{i}.glb,chair\n" for i in range(5)))
    folder = cases / "01_labels_paths/in"
    with pytest.raises(ValueError, match=r"no/0\.glb"):
        folder_sources(folder, labels=tmp_path / "labels.csv")
    with pytest.warns(ShardWarning, match="5 rows without a file"):
        assert len(folder_sources(folder, labels=tmp_path / "labels.csv", partial=True)) == 3


def test_a_build_says_which_objects_lost_a_texture(cases, tmp_path):
    small = ["--views", 2, "--size", 32, "--gaussians", 64, "--iterations", 2, "--teacher", "none"]
    done = clipgs("triplets", "build", "--meshes", cases / "10_obj_textures/in", "--out", tmp_path / "set", *small)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "1 object" in said and "lost" in said and "texture" in said
    assert "lost/a.obj (gone.png)" in clipgs("triplets", "inspect", tmp_path / "set").stdout
