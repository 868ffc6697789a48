"""Masks as COCO writes them, against cases made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from clipgs_lib.applications.scene_twin.masks import decompress, read_mask, run_lengths


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", []),
        ("5", [5]),
        ("`0", [16]),  # its fifth bit would be a sign: 16 takes a second character
        ("P1", [32]),
        ("53P1", [5, 3, 32]),  # the first three stand for themselves
        ("53P1N", [5, 3, 32, 1]),  # then 1 is -2 from 3
        ("53P1N0", [5, 3, 32, 1, 32]),  # and 32 is 0 from 32
        ("PPP1", [32 * 32 * 32]),
    ],
)
def test_compressed_run_lengths_are_numbers(text, counts):
    assert decompress(text) == counts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5p", "characters from 0 to o, got '5p'"),
        ("5 3", "got '5 3'"),
        ("5\u20ac", "characters from 0 to o"),
        ("5P", "characters from 0 to o, got '5P' .* is the text whole"),
        ("o" * 1_000_000, "at most 30 bits"),
    ],
)
def test_broken_compressed_run_lengths_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        decompress(text)


def test_compressed_and_plain_run_lengths_are_one_mask():
    expected = np.zeros((4, 5), bool)
    expected[1:3, 1] = expected[0, 3] = True
    assert run_lengths(expected) == [5, 2, 5, 1, 7]
    for counts in ([5, 2, 5, 1, 7], "525O2"):  # 1 is -1 from 2, 7 is 2 from 5
        assert (read_mask({"size": [4, 5], "counts": counts}, (4, 5), 1) == expected).all()


def test_run_lengths_round_trip():
    rng = np.random.default_rng(0)
    for share in (0.01, 0.5, 0.99, 1.0):
        mask = rng.random((17, 23)) < share
        assert (read_mask({"size": [17, 23], "counts": run_lengths(mask)}, (17, 23), 1) == mask).all()
