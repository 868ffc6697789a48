"""The node tree of a glTF 2.0 document, for splats and meshes alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..geometry import quat_to_rotmat
from .gltf_document import Document

_DEPTH = 256
INSTANCING = "EXT_mesh_gpu_instancing"


def world_matrices(document: Document) -> dict[int, np.ndarray]:
    """World matrix ``[4, 4]`` float64 of every node of the scene, by node index, parents before children.

    The scene is the document's default, else its first; without scenes, all root nodes. They must form a tree.
    """
    nodes, scenes = document.listed("nodes"), document.listed("scenes")
    if scenes:
        roots = document.items(document.item(scenes, document.root.get("scene", 0), "scene"), "nodes", int)
    else:
        children = {child for node in nodes for child in document.items(node, "children", int)}
        roots = [index for index in range(len(nodes)) if index not in children]
    world: dict[int, np.ndarray] = {}
    waiting = [(index, np.eye(4), 0) for index in reversed(roots)]
    while waiting:
        index, parent, depth = waiting.pop()
        if index in world or depth > _DEPTH:
            raise document.refuse(
                "nodes must form a tree", f"node {index} twice or {depth} levels deep", "it is broken"
            )
        node = document.item(nodes, index, "node")
        world[index] = parent @ _local_matrix(document, node)
        waiting += [(child, world[index], depth + 1) for child in reversed(document.items(node, "children", int))]
    return world


def placed_meshes(document: Document) -> list[tuple[dict[str, Any], dict[str, Any], np.ndarray]]:
    """Each mesh of the scene with its node and its world matrix; all meshes when there are no nodes.

    A node with ``EXT_mesh_gpu_instancing`` comes once per instance.
    """
    nodes, meshes = document.listed("nodes"), document.listed("meshes")
    if not nodes:
        return [(mesh, {}, np.eye(4)) for mesh in meshes]
    world = world_matrices(document)
    return [
        (document.item(meshes, nodes[index]["mesh"], "mesh"), nodes[index], placed)
        for index, matrix in world.items()
        if "mesh" in nodes[index]
        for placed in matrix @ _instances(document, nodes[index])
    ]


def _instances(document: Document, node: dict[str, Any]) -> np.ndarray:
    """``[I, 4, 4]`` places of a node's instances in its own frame; the identity where there are none."""
    extensions = document.child(node, "extensions")
    if INSTANCING not in extensions:
        return np.eye(4)[None]
    attributes = document.child(document.child(extensions, INSTANCING), "attributes")
    kinds = {"TRANSLATION": (0, 0, 0), "ROTATION": (0, 0, 0, 1), "SCALE": (1, 1, 1)}
    given = {
        name: document.attribute(attributes, name, len(rest)) for name, rest in kinds.items() if name in attributes
    }
    counts = {len(values) for values in given.values()}
    if len(counts) != 1:
        raise document.refuse("the attributes of instances must have one count", sorted(counts))
    (count,) = counts
    values = [given.get(name, np.tile(np.array(rest, float), (count, 1))) for name, rest in kinds.items()]
    if not all(np.isfinite(v).all() for v in values):
        raise document.refuse("the places of instances must be finite", "NaN or infinity")
    return _matrices(document, *values)


def _local_matrix(document: Document, node: dict[str, Any]) -> np.ndarray:
    """``[4, 4]`` float64 of a node: its matrix (stored by columns), or translation, rotation (xyzw), scale."""
    if "matrix" in node:
        return document.numbers(node, "matrix", 16).reshape(4, 4).T
    kinds = {"translation": (0, 0, 0), "rotation": (0, 0, 0, 1), "scale": (1, 1, 1)}
    values = [document.numbers(node, name, len(rest), rest)[None] for name, rest in kinds.items()]
    return _matrices(document, *values)[0]


def _matrices(document: Document, translations: np.ndarray, rotations: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """``[I, 4, 4]`` float64 of translations ``[I, 3]``, rotations ``[I, 4]`` (xyzw) and scales ``[I, 3]``."""
    if not (np.linalg.norm(rotations, axis=1) > 1e-6).all():
        raise document.refuse("a node's rotation must not be zero", (0, 0, 0, 0))
    turns = quat_to_rotmat(torch.from_numpy(rotations[:, [3, 0, 1, 2]].astype(np.float64))).numpy()  # [I, 3, 3]
    matrices = np.tile(np.eye(4), (len(scales), 1, 1))
    matrices[:, :3, :3] = turns * scales[:, None, :]
    matrices[:, :3, 3] = translations
    return matrices
