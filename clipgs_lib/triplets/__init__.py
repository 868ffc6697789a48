"""The triplet factory: mesh import, procedural catalogue, splat fitting, captions and shards."""
