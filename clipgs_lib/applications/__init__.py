"""What the embeddings are for: whole tasks that are done with them, scored."""

from __future__ import annotations
