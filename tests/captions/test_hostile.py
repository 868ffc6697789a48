"""Hostile texts on their whole way: through filter and enrichment into a shard, and out again."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from clipgs_lib.captions.enrich import caption_object
from clipgs_lib.captions.filtering import captions_table
from clipgs_lib.shards.triplet import decode_triplet, encode_triplet

from ..shards.shard_samples import make_triplet

HOSTILE = [
    "",
    "half a pair \ud83d",
    "NUL \x00 and \x1b[31m colours",
    "<script>alert(1)</script> a mug",
    '"><img src=x onerror=alert(1)>',
    "a \u202edeca\u202c mug",
    "كوب أحمر",
    "a family 👨‍👩‍👧 on a mug",
    "very " * 20_000 + "long",
    "../../etc/passwd.glb",
    "{{7*7}} ${PATH} %s %n '; DROP TABLE mugs;--",
]


def through_a_shard(texts):
    found = caption_object(texts, limit=4)
    assert all(text.text == text.text.strip() != "" for text in found.captions)
    triplet = make_triplet(0, teacher=None, texts=found.captions)
    assert decode_triplet(encode_triplet(triplet), "shard").texts == found.captions
    return found


def test_hostile_texts_reach_a_shard_harmless_and_whole():
    found = through_a_shard(HOSTILE)
    texts = [caption.text for caption in found.captions]
    assert {"half a pair", "a deca mug", "كوب أحمر", "a family 👨‍👩‍👧 on a mug", "passwd"} <= set(texts)
    assert "<script>alert(1)</script> a mug" in texts  # text it is: pages escape it, nothing runs it
    assert found.report.counts == {"empty": 1}
    assert not any(mark in text for text in texts for mark in "\x00\x1b\u202e\u202c\ud83d")


def test_the_table_escapes_in_pandas():
    import pandas

    rows = captions_table(caption_object(HOSTILE).report)
    page = pandas.DataFrame(rows).to_html()
    assert "&lt;script&gt;" in page and "<script>" not in page and "<img" not in page


@settings(max_examples=40)
@given(st.lists(st.text(st.characters(), min_size=1, max_size=40), min_size=1, max_size=4))
def test_any_texts_reach_a_shard(texts):
    through_a_shard([*texts, "mug"])
