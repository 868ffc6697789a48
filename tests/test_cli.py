"""The ``clipgs`` command: what it writes, what it says, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import clipgs_lib as cg
from clipgs_lib import cli
from clipgs_lib.cli import notebook_commands, splat_commands

from .test_runner import RECORD, write_notebook


def clipgs(*words, code=0):
    """Run the command in this process; its output and its errors."""
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.stdout, result.stderr


@pytest.fixture
def file(tmp_path, splats_factory):
    """A PLY with 300 gaussians of SH degree 2, in a folder with a space."""
    folder = tmp_path / "my splats"
    folder.mkdir()
    return cg.write_splats(splats_factory(300, 2), folder / "thing.ply")


# ---- convert -------------------------------------------------------------------------------------------------


def test_convert_by_name(file):
    out = file.with_suffix(".compressed.ply")
    said, _ = clipgs("convert", file, out)
    assert "thing.ply: ply, " in said and "compressed_ply, " in said
    assert said.count("300 gaussians, SH 2") == 2 and "% of the size" in said
    there, back = cg.read_splats(file), cg.read_splats(out)
    assert len(back) == 300 and back.sh_degree == 2
    assert torch.cdist(there.means, back.means).min(dim=1).values.max() < 0.01


def test_convert_changes_what_is_asked(file):
    out = file.with_name("out.bin")
    clipgs("convert", file, out, "--format", "ply", "--sh-degree", 1, "--max-gaussians", 50, "--normalize")
    splats = cg.read_splats(out)
    assert len(splats) == 50 and splats.sh_degree == 1
    assert splats.means.norm(dim=1).max().item() == pytest.approx(1, abs=1e-5)


def test_convert_keeps_what_is_smaller_already(file):
    out = file.with_name("out.ply")
    clipgs("convert", file, out, "--sh-degree", 3, "--max-gaussians", 5000)
    splats = cg.read_splats(out)
    assert len(splats) == 300 and splats.sh_degree == 2, "no padding, no repeats"


def test_convert_prunes_and_says_so(file, splats_factory):
    splats = splats_factory(20)
    splats.opacities[:5] = 1e-4
    source = cg.write_splats(splats, file.with_name("faint.ply"))
    _, said = clipgs("convert", source, file.with_name("out.ply"), "--prune")
    assert "kept 15, removed 5" in said and len(cg.read_splats(file.with_name("out.ply"))) == 15


# ---- errors --------------------------------------------------------------------------------------------------


def test_expected_errors_are_one_line(file, tmp_path):
    for words, must in [
        (["convert", tmp_path / "gone.ply", tmp_path / "o.ply"], "the path must name an existing file"),
        (["convert", file, tmp_path / "o.xyz"], "suffix of a writable format"),
        (["convert", file, tmp_path / "no" / "o.ply"], "the output folder must exist"),
        (["render", file, tmp_path / "o.jpg"], "OUT must end in .png or .gif"),
        (["render", file, tmp_path / "o.png", "--up", "w"], "up must be one of"),
        (["render", file, tmp_path / "o.png", "--background", "pink"], "--background must be black, white, grey"),
        (["render", file, tmp_path / "o.png", "--device", "gpu"], 'device must be "auto"'),
        (["diagnose", file, file, "--fix", tmp_path / "o.ply"], "--fix needs exactly one PATH, got 2"),
        (["notebooks", "run", "--notebooks-dir", tmp_path / "no"], "the notebooks folder must exist"),
        (["notebooks", "list", "--notebooks-dir", tmp_path], "found none"),
    ]:
        said, error = clipgs(*words, code=2)
        assert said == "" and error.count("\n") == 1 and error.startswith("error: ") and must in error, error
    assert not list(tmp_path.glob("o.*"))


def test_debug_shows_the_traceback(file, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPGS_DEBUG", "1")
    result = CliRunner().invoke(cli.app, ["convert", str(tmp_path / "gone.ply"), str(tmp_path / "o.ply")])
    assert isinstance(result.exception, cg.FormatError)


def test_a_bug_is_not_dressed_up_as_an_expected_error(file, monkeypatch):
    monkeypatch.setattr("clipgs_lib.formats.sniff", lambda path: int("not ours"))
    monkeypatch.setattr("clipgs_lib.formats.read_splats", lambda path: torch.zeros(2).reshape(3))
    result = CliRunner().invoke(cli.app, ["convert", str(file), str(file.with_name("o.ply"))])
    assert isinstance(result.exception, RuntimeError)
    monkeypatch.setattr("clipgs_lib.formats.read_splats", lambda path: json.loads("{"))
    result = CliRunner().invoke(cli.app, ["convert", str(file), str(file.with_name("o.ply"))])
    assert isinstance(result.exception, json.JSONDecodeError), "a ValueError, but not one of our own checks"


def test_library_warnings_are_one_line(file, splats_factory):
    splats = splats_factory(10)
    splats.means[0] = float("nan")
    with pytest.warns(cg.SplatWarning):
        cg.read_splats(_with_nan(file, splats))
    done = subprocess.run(
        [sys.executable, "-m", "clipgs_lib", "convert", file.with_name("nan.ply"), file.with_name("o.ply")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("warning: ") and done.stderr.count("\n") == 1 and "dropped" in done.stderr


def _with_nan(file, splats):
    """A PLY whose first gaussian lies nowhere (writers refuse or clean such splats, so it is patched in)."""
    path = cg.write_splats(splats.__class__(**{n: getattr(splats, n)[1:] for n in _COLUMNS}), file.with_name("nan.ply"))
    data = bytearray(path.read_bytes())
    start = data.index(b"end_header\n") + len(b"end_header\n")
    data[start : start + 4] = b"\x00\x00\xc0\x7f"
    path.write_bytes(data)
    return path


_COLUMNS = ("means", "quats", "scales", "opacities", "sh0", "shN")


# ---- render --------------------------------------------------------------------------------------------------


def test_render_png_sheet_gif_and_folder(file):
    clipgs("render", file, file.with_name("one.png"), "--size", 48, "--background", "#102030")
    with Image.open(file.with_name("one.png")) as image:
        assert image.size == (48, 48)
        assert image.convert("RGB").getpixel((0, 0)) == (16, 32, 48)
        assert len(image.convert("RGB").getcolors(48 * 48)) > 50, "something is drawn"
    clipgs("render", file, file.with_name("four.png"), "--size", 32, "--views", 4)
    with Image.open(file.with_name("four.png")) as image:
        assert image.size == (66, 66)
    clipgs("render", file, file.with_name("turn.gif"), "--size", 32, "--views", 5, "--fps", 10)
    with Image.open(file.with_name("turn.gif")) as image:
        assert image.n_frames == 5 and image.info["duration"] == 100
    said, _ = clipgs("render", file, file.with_name("folder"), "--size", 32, "--views", 3, "--elevation", 40)
    assert [p.name for p in sorted(file.with_name("folder").iterdir())] == ["000.png", "001.png", "002.png"]
    assert "3 views of 300 gaussians, 32 x 32 pixels" in said


@pytest.mark.parametrize(("text", "colour"), [("white", (1, 1, 1)), ("Black", (0, 0, 0)), ("#ff0000", (1, 0, 0))])
def test_colours(text, colour):
    assert splat_commands.parse_colour(text) == colour


# ---- diagnose ------------------------------------------------------------------------------------------------


def test_diagnose_text_json_and_exit_codes(file, tmp_path):
    said, _ = clipgs("diagnose", file)
    assert "thing.ply" in said and "300 gaussians" in said
    broken = tmp_path / "page.ply"
    broken.write_text("<!DOCTYPE html><html><body>404</body></html>")
    said, _ = clipgs("diagnose", file, broken, "--json", code=1)
    good, bad = json.loads(said)
    assert good["format"] == "ply" and good["count"] == 300 and good["ok"] is True
    assert bad["ok"] is False and any(finding["severity"] == "error" for finding in bad["findings"])
    said, error = clipgs("diagnose", tmp_path / "gone.ply", file, code=2)
    assert "gone.ply" in error and "thing.ply" in said, "the others are looked at all the same"


# ---- notebooks -----------------------------------------------------------------------------------------------


def test_pairs_are_joined():
    assert notebook_commands.join_pairs(["01", "-p", "SEED", "-1", "--force"]) == ["01", "-p", "SEED=-1", "--force"]
    assert notebook_commands.join_pairs(["-p", "SEED=1", "01"]) == ["-p", "SEED=1", "01"]
    assert notebook_commands.join_pairs(["--param", "ID", "a=b"]) == ["--param", "ID=a=b"]
    assert notebook_commands.join_pairs(["--", "-p", "A", "1"]) == ["--", "-p", "A", "1"]
    assert notebook_commands.join_pairs(["-p"]) == ["-p"] and notebook_commands.join_pairs(["-p", "A"]) == ["-p", "A"]


def test_notebooks_are_listed_and_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "notebooks", "01_good", RECORD)
    write_notebook(tmp_path / "notebooks", "02_bad", "raise RuntimeError('no')")
    (tmp_path / "p.yaml").write_text("01_good:\n  NOTE: from a file\n")
    said, _ = clipgs("notebooks", "list")
    assert "01_good  A title (not run yet)" in said and "Does it run?" in said and "SEED: int = 0" in said
    said, _ = clipgs("notebooks", "run", "--params", "p.yaml", "-p", "SEED", "4", "--jobs", "2", code=1)
    assert "index: build/notebooks/index.html" in said and "RuntimeError: no" in said
    metrics = json.loads((tmp_path / "build/notebooks/01_good/metrics.json").read_text())["metrics"]
    assert metrics == {"seed": 4, "note": "from a file"}
    said, _ = clipgs("notebooks", "list")
    assert "(passed in" in said and "(failed in" in said


def test_nothing_starts_when_a_parameter_is_wrong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "notebooks", "01_good", RECORD)
    for words, must in [
        (["-p", "SEAD", "4"], "did you mean SEED?"),
        (["-p", "SEED", "four"], "SEED must be int, got 'four'"),
        (["-p", "SEED"], "-p must be followed by NAME VALUE"),
        (["01_god"], "did you mean '01_good'?"),
        (["--timeout", "0"], "--timeout must be more than 0"),
    ]:
        _, error = clipgs("notebooks", "run", *words, code=2)
        assert must in error
    assert not (tmp_path / "build").exists()


# ---- starting up ---------------------------------------------------------------------------------------------


def test_help_does_not_import_the_heavy_packages():
    """A fast start, tested by what is loaded and not by the clock."""
    probe = (
        "import sys; from typer.testing import CliRunner; from clipgs_lib import cli\n"
        "result = CliRunner().invoke(cli.app, ['--help']); assert result.exit_code == 0\n"
        "heavy = {'torch', 'numpy', 'scipy', 'numba', 'PIL', 'papermill', 'nbformat', 'plotly', 'ipywidgets'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "words",
    [
        "diagnose no.ply",
        "render no.ply a.png",
        "triplets build",
        "triplets build --meshes no --out o",
        "train --config no",
    ],
)
def test_what_is_missing_is_said_without_torch(words):
    probe = (
        "import sys; from typer.testing import CliRunner; from clipgs_lib import cli\n"
        f"result = CliRunner().invoke(cli.app, {words.split()}); assert result.exit_code == 2, result\n"
        "print(result.stderr.count(chr(10)), sorted({'torch', 'numpy', 'scipy', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1 []"


def test_a_build_without_a_source_says_all_that_it_needs():
    _, error = clipgs("triplets", "build", code=2)
    assert all(word in error for word in ("--meshes", "--splats", "--catalogue", "--out DIR", "got none", "e.g."))
    _, error = clipgs("triplets", "build", "--out", "set", "--meshes", "a", "--catalogue", 3, code=2)
    assert "got --meshes, --catalogue, --out" in error
    said, _ = clipgs("triplets", "build", "--list")
    assert "views = 12  # " in said


def test_every_help_text_ends_with_an_example(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for words in cli._COMMANDS:
        said, _ = clipgs(*words.split(), "--help")
        assert f"Example: clipgs {words}" in said, words


def test_version():
    said, _ = clipgs("--version")
    assert said.strip() == f"clipgs_lib {cg.__version__}"
