"""The errors of files: what must hold, what came and what to do, in parts that code can read and in one sentence."""

from __future__ import annotations

import os


class ExplainedError(ValueError):
    """Something that cannot be read, written or used as asked.

    ``str()`` gives ``"PATH: MUST, got GOT; TODO"``. All parts are arguments, so that the error can cross processes.

    Args:
        path: the file, and where that helps the place in it.
        must: what must hold.
        got: what came.
        todo: what to do about it; may be empty.
        code: a fixed word for the kind of trouble, for code that acts on it; sentences may change, codes do not.
    """

    def __init__(
        self, path: str | os.PathLike[str], must: str, got: str, todo: str = "", code: str = "unreadable"
    ) -> None:
        self.path, self.must, self.got, self.todo, self.code = str(path), must, got, todo, code
        super().__init__(self.path, must, got, todo, code)

    @property
    def reason(self) -> str:
        """What must hold and what came, without the path and the remedy."""
        return f"{self.must}, got {self.got}"

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" + (f"; {self.todo}" if self.todo else "")
