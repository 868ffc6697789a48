"""The base of the errors that explain themselves."""

from __future__ import annotations

import pickle

import pytest

from clipgs_lib.errors import ExplainedError
from clipgs_lib.formats import FormatError
from clipgs_lib.gallery import GalleryError
from clipgs_lib.meshes import MeshError
from clipgs_lib.shards import ShardError


@pytest.mark.parametrize("kind", [ExplainedError, FormatError, MeshError, ShardError, GalleryError])
def test_an_error_has_parts_and_one_sentence_and_crosses_processes(kind: type[ExplainedError]) -> None:
    error = kind("a b.ply", "it must be so", "this", "do that", "some_code")
    for copy in (error, pickle.loads(pickle.dumps(error))):
        assert isinstance(copy, ValueError) and type(copy) is kind
        assert str(copy) == "a b.ply: it must be so, got this; do that"
        assert (copy.path, copy.must, copy.got, copy.todo, copy.code) == (*error.args,)
    assert str(kind("a", "b", "c")) == "a: b, got c"
    assert kind("a", "b", "c").code == "unreadable"
