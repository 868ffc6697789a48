"""Answers on pages without a kernel: reports, and explorers in exported notebooks."""

from __future__ import annotations

import io
import json
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from jinja2.utils import htmlsafe_json_dumps
from PIL import Image

from clipgs_lib.gallery import Gallery, GalleryError, GalleryWriter, Question, Rows, Session, precision_of_queries
from clipgs_lib.runner.page import notebook_page
from clipgs_lib.vectors import unit
from clipgs_lib.widgets import RetrievalExplorer, answers
from clipgs_lib.widgets.answers import answers_data, write_report
from clipgs_lib.widgets.live import ASKED, MIME

from ..conftest import clipgs, make_splats
from ..gallery.test_session import MARKUP, TEACHER, ColorTeacher, file_of, gallery_of, tile
from .browser import chromium

DARK = "() => getComputedStyle(document.body).backgroundColor"


def session_of(times: int = 3, **options) -> Session:
    options = {"open_splats": lambda key: make_splats(60, seed=int(key))} | options
    return Session(gallery_of(times), ColorTeacher(), **options)


def report(path: Path, session: Session, *questions: Question, **options) -> dict:
    return write_report(path, session, questions, title=MARKUP, command=f"clipgs report '{MARKUP}'", **options)


# ---- what is in it -------------------------------------------------------------------------------------------------


def test_hits_come_with_scores_pictures_marks_and_splats(monkeypatch):
    session, calls = session_of(), []
    embed = session.teacher.zero_shot_weights
    monkeypatch.setattr(session.teacher, "zero_shot_weights", lambda *given: calls.append(given) or embed(*given))
    session.search("green")
    before = session.state
    questions = [Question("red", right=("red",)), Question("blue", minus="red"), Question(like="1", right=("nothing",))]
    data = answers_data(session, questions, k=4, live=2, labels=["a red one", "a green one"])
    assert len(calls) == 1, "labels are embedded once for all queries"
    assert session.state == before and json.loads(json.dumps(data)) is not None
    red, mixed, like = data["queries"]
    answer = session.ask([*session.state.parts[:0], *answers.query_parts("red")])
    assert [hit["key"] for hit in red["hits"]] == [hit.key for hit in answer.hits[:4]]
    assert [hit["score"] for hit in red["hits"]] == [hit.score for hit in answer.hits[:4]]
    assert [hit["right"] for hit in red["hits"]] == [True, True, True, False]
    assert red["right"] == {"first": 3, "of": 3, "share": 0.25} and "the only 3 in the gallery" in red["notes"][1]
    assert [hit["label"] for hit in red["hits"][:3]] == ["a red one"] * 3
    assert [term["weight"] for term in mixed["terms"]] == [1.0, -0.5] and mixed["hits"][0]["right"] is None
    assert all(sum(hit["shares"]) == pytest.approx(hit["score"], abs=1e-4) for hit in mixed["hits"])
    assert like["terms"][0]["picture"] and like["right"] is None and "no right answer" in like["notes"][1]
    assert set(data["pictures"]) == {hit["key"] for query in data["queries"] for hit in query["hits"]}
    first_two = {query["hits"][i]["key"] for query in data["queries"] for i in range(2)}
    assert set(data["live"]) == first_two and data["lost"] == []


def test_metrics_are_those_of_the_test_of_sense(tmp_path):
    session = session_of(5)
    queries = {"red": ["red"], "green and blue": ["green"], "blue": ["kind"], "red thing": ["nobody"]}
    questions = [Question(text, right=tuple(words)) for text, words in queries.items()]
    facts = report(tmp_path / "r.html", session, *questions)
    shares = precision_of_queries(session.gallery, ColorTeacher(), questions)
    assert facts["precision@5"] == pytest.approx(np.mean(list(shares.values()))) and facts["judged"] == len(shares) == 3
    assert facts["any right"] == pytest.approx(np.mean([share > 0 for share in shares.values()]))
    assert facts["by chance"] == pytest.approx((0.25 + 0.25 + 1) / 3)
    assert "judged" not in report(tmp_path / "r.html", session, Question("red"))


def test_what_does_not_fit_stays_pictures_or_is_refused(tmp_path, monkeypatch):
    session = session_of()
    whole = answers_data(session, [Question("red"), Question("blue")], k=6, live=6)
    sizes = [len(htmlsafe_json_dumps({key: one})) for key, one in whole["live"].items()]
    rest = len(htmlsafe_json_dumps(whole)) - sum(sizes)
    some = answers_data(session, [Question("red"), Question("blue")], k=6, live=6, most=rest + sum(sizes[:3]) + 100)
    assert list(some["live"]) == list(whole["live"])[:3], "the best hits first"
    with pytest.raises(ValueError, match=r"hits of all 2 queries must fit into 900 bytes, got more after query 1"):
        answers_data(session, [Question("red"), Question("blue")], most=900)
    monkeypatch.setattr(answers, "MAX_BYTES", 150_000)
    facts = report(tmp_path / "r.html", session, Question("red"), Question("blue"), live=6)
    assert (tmp_path / "r.html").stat().st_size == facts["bytes"] <= 150_000 and 0 < facts["live"] < len(whole["live"])


def test_splats_that_are_gone_leave_pictures_and_a_sentence(tmp_path):
    facts = report(tmp_path / "r.html", Session(gallery_of(), ColorTeacher()), Question("red"))
    assert facts["live"] == 0 and "must lie where they were when they were embedded" in facts["lost"][0]
    assert "Not all splats could be read" in (tmp_path / "r.html").read_text()

    def broken(key):
        raise RuntimeError(f"no memory for {key}")

    data = answers_data(session_of(open_splats=broken), [Question("red")], k=3, live=2)
    assert data["live"] == {} and len(data["lost"]) == 2 and "no memory for" in data["lost"][0]


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (Question("the"), r"query 1 \('the'\) must have an answer, got: a text must say what to look for"),
        (Question("x" * 100_000), "a text may have at most 2,000 characters, got 100,000"),
        (Question(like="nobody"), "key must be one of"),
        (Question(image="nothing.png"), "nothing.png"),
    ],
)
def test_queries_without_an_answer_are_named(question, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        report(tmp_path / "r.html", session_of(), question)
    assert not (tmp_path / "r.html").exists()


def test_the_command(tmp_path, monkeypatch):
    gallery_of(3).save(tmp_path / "g")
    monkeypatch.setattr("clipgs_lib.evaluation.load_teacher_of", lambda info, device: ColorTeacher())
    (tmp_path / "q.yaml").write_text("red: red\nblue: [nobody]\n")
    (tmp_path / "labels").write_text("# mine\nred\ngreen\n")
    words = ["--queries", tmp_path / "q.yaml", "--labels", tmp_path / "labels", "--out", tmp_path / "r.html", "-k", 3]
    done = clipgs("report", tmp_path / "g", *words)
    assert done.returncode == 0 and "2 queries, 0 splats to turn" in done.stdout, done.stderr
    assert "1 queries with right answers: precision@5 100%" in done.stdout and "could not be read" in done.stdout
    plain, green = (
        json.loads(clipgs("search", tmp_path / "g", "red", "--json", *more).stdout)["hits"][0]["score"]
        for more in ([], ["--template", "a green {}"])
    )
    assert plain != green, "the template's colour counts"
    assert clipgs("report", tmp_path / "g", *words, "--template", "a green {}").returncode == 0
    assert f'"score": {green}' in (tmp_path / "r.html").read_text()
    failed = clipgs("report", tmp_path / "g", *words, "--template", "no words")
    assert failed.returncode == 2 and "templates must be texts with {} where the words go" in failed.stderr
    found = clipgs("search", tmp_path / "g", "red", "-k", 2, "--labels", tmp_path / "labels")
    assert "= red (" in found.stdout and found.returncode == 0
    assert "[test]" in clipgs("search", tmp_path / "g", "green", "-k", 1).stdout, "of the test split"
    plain = json.loads(clipgs("search", tmp_path / "g", "red", "--labels", tmp_path / "labels", "--json").stdout)
    assert {"label": "red", "split": "train", "category": "red kind"}.items() <= plain["hits"][0].items()
    (tmp_path / "none").write_text("# nothing\n")
    for words_of in (["search", tmp_path / "g", "red"], ["report", tmp_path / "g", *words]):
        failed = clipgs(*words_of, "--labels", tmp_path / "none")
        assert failed.returncode == 2 and "at least one line that is no # note" in failed.stderr
    # a gallery that is written meanwhile is read as it was at its last commit
    with GalleryWriter(tmp_path / "g", Gallery.open(tmp_path / "g").space) as writer:
        writer.add(Rows(unit(torch.ones(1, 3)), ["new"], [{}], [b""]))
        assert clipgs("report", tmp_path / "g", *words).returncode == 0
    for bad, sentence in (("absent.txt", "existing file"), ("g", "directory")):
        failed = clipgs("report", tmp_path / "g", "--queries", tmp_path / bad, "--out", tmp_path / "s.html")
        assert failed.returncode == 2 and sentence in failed.stderr and not (tmp_path / "s.html").exists()
    other = Gallery(unit(torch.ones(1, 4)), ["a"], teacher=TEACHER)
    with pytest.raises(GalleryError, match="the teacher must be"):
        Session(other, ColorTeacher())


# ---- pages ---------------------------------------------------------------------------------------------------------


def opened(browser, path: Path, said: list[str], **options):
    """A page of a file; what it says or asks the network for is said."""
    page = browser.new_page(**options)
    page.set_default_timeout(240_000)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request",
        lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:", "blob:")) else None,
    )
    page.goto(path.as_uri())
    return page


def colors(page) -> np.ndarray:
    page.locator(".re-aside .clipgs-sv[data-state=ready]").wait_for()
    shot = page.locator(".re-aside .sv-surface").screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


@pytest.mark.browser
def test_a_report_opens_from_a_file_and_asks_no_network(tmp_path, shots):
    (tmp_path / "p.png").write_bytes(file_of(tile((30, 60, 200))))
    questions = [
        Question("a red thing", right=("red",)),
        Question(f"{MARKUP} green", minus="red"),
        Question("<b>كرسي</b>"),
    ]
    facts = report(
        tmp_path / "r.html", session_of(), *questions, Question(image=str(tmp_path / "p.png")), live=2, labels=[MARKUP]
    )
    assert facts["live"] >= 4 and facts["bytes"] < 1_000_000
    said: list[str] = []
    with chromium() as browser:
        page = opened(browser, tmp_path / "r.html", said, viewport={"width": 1280, "height": 900}, color_scheme="light")
        assert page.locator("section").count() == 4 and page.locator("section:visible").count() == 4
        assert page.title() == f"{MARKUP}: what a search finds", "a text, and nothing ran"
        assert (
            MARKUP in page.locator("section").nth(1).locator("h3").inner_text()
            and page.locator("img[src=x]").count() == 0
        )
        assert set(page.get_by_title("nearest of your labels").all_text_contents()) == {f"≈ {MARKUP}"}
        assert page.locator("section").first.locator(".an-right").count() == 3
        assert page.locator("section").nth(1).locator(".re-share").count() == 2 * 6
        assert "clipgs report" in page.locator("dd.command").inner_text()
        first = colors(page)
        assert (first.std(axis=2) > 8).mean() > 0.02, "the first hit is drawn, in its colours"
        page.locator("section").nth(1).locator("button.re-hit").first.click()
        page.wait_for_function("document.querySelectorAll('[aria-current]').length === 1")
        assert np.abs(colors(page) - first).mean() > 1 and page.locator("canvas").count() <= 2, "one view at a time"
        page.screenshot(path=shots / "report.png")
        page.get_by_role("button", name="<b>كرسي</b>").click()
        page.wait_for_function("scrollY > 100")
        page.locator(".re-aside .re-x").click()
        assert page.locator("aside:visible").count() == 0 and page.locator("canvas").count() == 0
        light = page.evaluate(DARK)
        narrow = opened(browser, tmp_path / "r.html", said, viewport={"width": 400, "height": 800}, color_scheme="dark")
        assert narrow.evaluate(DARK) != light and narrow.locator("aside:visible").count() == 0
        narrow.locator("button.re-hit").first.click()
        colors(narrow)
        assert narrow.evaluate("document.documentElement.scrollWidth") <= 400
        narrow.screenshot(path=shots / "report-narrow.png")
    assert said == []


@pytest.mark.browser
def test_an_exported_notebook_has_explorers_with_splats(tmp_path, shots, monkeypatch):
    monkeypatch.delenv(ASKED, raising=False)
    splats = {"open_splats": lambda key: make_splats(60, seed=int(key))}
    explorer = RetrievalExplorer(gallery_of(2), ColorTeacher(), start="red", examples=["blue", MARKUP], **splats)
    assert MIME not in explorer._repr_mimebundle_()[0]
    monkeypatch.setenv(ASKED, "1")
    other = RetrievalExplorer(gallery_of(), ColorTeacher(), start="green", **splats)
    assert MIME not in RetrievalExplorer(gallery_of(), ColorTeacher())._repr_mimebundle_()[0], "without a query"
    outputs = [nbformat.v4.new_output("display_data", data=one._repr_mimebundle_()[0]) for one in (explorer, other)]
    cell = nbformat.v4.new_code_cell("explorer", execution_count=1, outputs=outputs)
    html = notebook_page(nbformat.v4.new_notebook(cells=[cell]), "t")
    assert html.count("class SplatViewer") == 1, "one script for both"
    (tmp_path / "p.html").write_text(html, encoding="utf-8")
    said: list[str] = []
    with chromium() as browser:
        page = opened(browser, tmp_path / "p.html", said, viewport={"width": 1100, "height": 900})
        first, second = (page.locator(f"#clipgs-view-{i}") for i in range(2))
        assert first.locator("nav button").all_text_contents() == ["red", "blue", MARKUP]
        assert (
            first.locator("section:visible h3").all_text_contents() == ["red"]
            and first.locator("img:not(.sv-poster)").count() == 0
        )
        assert (
            second.locator("section:visible h3").all_text_contents() == ["green"]
            and not second.locator("nav").is_visible()
        )
        assert (colors(first).std(axis=2) > 8).mean() > 0.02
        first.get_by_role("button", name="blue", exact=True).click()
        assert first.locator("section:visible h3").all_text_contents() == ["blue"]
        first.locator("section:visible button.re-hit").nth(1).click()
        first.locator(".re-aside .clipgs-sv[data-state=ready]").wait_for()
        assert "blue" in first.locator(".re-aside .re-title").inner_text()
        page.screenshot(path=shots / "exported.png")
    assert said == []
