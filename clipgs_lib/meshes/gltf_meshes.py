"""Meshes of glTF 2.0 (``.glb``, ``.gltf``): the scene flattened, colours as displayed.

Base colour factors and ``COLOR_0`` are linear light, textures are sRGB (glTF 2.0, section 3.9.2). `Part` holds
displayed values: factors are folded into the texture or the vertex colours in linear light. Skinned meshes stand in
the pose of their nodes. Only base colour is read: no emission, no transparency, no lights.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..colors import linear_from_srgb, srgb_from_linear
from ..formats.gltf_document import INSTANCING, Document, load_document, placed_meshes, world_matrices
from ..formats.raw import FormatError
from .checks import MAX_FACES_READ, Lost, MeshError, Textures, sound_part
from .mesh import Part

_SPLATS = "KHR_gaussian_splatting"
_PACKED = {"KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression"}
_UNDERSTOOD = {INSTANCING, _SPLATS, "KHR_mesh_quantization", "KHR_texture_transform", "KHR_lights_punctual"}
_LOOKS = ("KHR_materials_", "KHR_texture_", "EXT_texture_")  # at worst a texture is missing, which is noted
_CLAMP, _MIRROR = 33071, 33648
_MAX_PRIMITIVES = 100_000


class _Material(NamedTuple):
    factor: np.ndarray  # [4] linear light
    texture: np.ndarray | None = None  # [H, W, 3] uint8, factor folded in
    coordinates: int = 0  # which TEXCOORD set
    transform: np.ndarray | None = None  # [2, 3] of KHR_texture_transform
    wraps: tuple[int, int] = (10497, 10497)
    name: str = ""


def read_gltf(path: Path, notes: list[str], root: Path | None = None, factors: str = "linear") -> list[Part]:
    """Parts of the default scene, in world coordinates, y up; arguments and errors are those of `read_mesh_notes`."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is dropped, with a note
            return _Reader(load_document(path), notes, root, factors).parts()
    except FormatError as error:
        must = error.must.replace("gaussian", "element")  # the bounds of splat files, for vertices and indices
        raise MeshError(error.path, must, error.got, error.todo) from None


class _Reader:
    def __init__(self, document: Document, notes: list[str], root: Path | None, factors: str) -> None:
        self.document, self.notes, self.factors = document, notes, factors
        self.textures = Textures(document.path, notes, root)
        self.materials: dict[Any, _Material] = {}
        self.images: dict[Any, np.ndarray | None] = {}
        self.worlds: dict[int, np.ndarray] | None = None

    def parts(self) -> list[Part]:
        document = self.document
        required = set(document.items(document.root, "extensionsRequired", str))
        if required & _PACKED:
            got = f"packed by {', '.join(sorted(required & _PACKED))}"
            raise MeshError(document.path, "the mesh must be stored plainly", got, "export without it")
        unknown = sorted(name for name in required - _UNDERSTOOD if not name.startswith(_LOOKS))
        if unknown:
            got = ", ".join(unknown)[:200]
            raise MeshError(document.path, "only known extensions may be required", got, "export without them")
        scenes = len(document.listed("scenes"))
        if scenes > 1:
            self.notes.append(f"only the default one of {scenes} scenes was read")
        out: list[Part] = []
        visited = faces = 0
        for mesh, node, world in placed_meshes(document):
            instances = document.child(document.child(node, "extensions"), INSTANCING)
            if set(document.child(instances, "attributes")) - {"TRANSLATION", "ROTATION", "SCALE"}:
                self.notes.append("of instances only their places were read, not their colours")
            for primitive in document.items(mesh, "primitives", dict):
                visited += 1
                part = self.part(mesh, node, primitive, world)
                if part is not None:
                    faces += len(part.faces)
                    out.append(part)
                if faces > MAX_FACES_READ or visited > _MAX_PRIMITIVES:
                    bound = f"a scene must have at most {MAX_FACES_READ:,} triangles in {_MAX_PRIMITIVES:,} primitives"
                    raise MeshError(document.path, bound, f"{faces:,} in {visited:,}", "refused as a bomb")
        if not out and _SPLATS in document.items(document.root, "extensionsUsed", str):
            raise MeshError(document.path, "the file must hold triangles", "gaussian splats", "use read_splats")
        return out

    def part(
        self, mesh: dict[str, Any], node: dict[str, Any], primitive: dict[str, Any], world: np.ndarray
    ) -> Part | None:
        document = self.document
        if _SPLATS in document.child(primitive, "extensions"):
            return None
        attributes = document.child(primitive, "attributes")
        mode = primitive.get("mode", 4)
        if mode not in (4, 5, 6) or "POSITION" not in attributes:
            self.notes.append("points and lines were left out")
            return None
        points = document.attribute(attributes, "POSITION", 3).astype(np.float64)
        points = self.morphed(points, primitive, node, mesh)
        faces = self.faces(primitive, len(points), mode)
        material = self.material(primitive.get("material"))
        if "skin" in node:
            points = self.skinned(node, attributes, points, world)
        else:
            points = points @ world[:3, :3].T + world[:3, 3]
            if np.linalg.det(world[:3, :3]) < 0:
                faces = faces[:, ::-1]  # a mirror turns triangles inside out
        look = self.look(attributes, material, len(points))
        names = (node.get("name"), mesh.get("name"), material.name)
        name = next((str(n)[:120] for n in names if isinstance(n, str) and n), "")
        return sound_part(points, faces, self.notes, name=name, **look)

    def morphed(
        self, points: np.ndarray, primitive: dict[str, Any], node: dict[str, Any], mesh: dict[str, Any]
    ) -> np.ndarray:
        """Points ``[V, 3]`` with the morph targets added by their weights, a node's before its mesh's."""
        document = self.document
        targets = document.items(primitive, "targets", dict)
        holder = node if "weights" in node else mesh
        weights = document.numbers(holder, "weights", len(targets), (0.0,) * len(targets)) if targets else ()
        for target, weight in zip(targets, weights, strict=True):
            if weight and "POSITION" in target:
                shift = self.counted(document.attribute(target, "POSITION", 3), len(points), "a morph target")
                points = points + weight * shift
            if weight and set(target) - {"POSITION", "NORMAL", "TANGENT"}:
                self.notes.append("of morph targets only positions are applied")
        return points

    def faces(self, primitive: dict[str, Any], count: int, mode: int) -> np.ndarray:
        """``[F, 3]`` int64 of lists, strips and fans."""
        document = self.document
        corners = document.indices(primitive["indices"]) if "indices" in primitive else np.arange(count)
        if len(corners) and int(corners.max()) >= count:
            raise document.refuse(f"indices must lie below the {count:,} vertices", int(corners.max()))
        if mode == 4:
            return corners[: len(corners) // 3 * 3].reshape(-1, 3)
        if len(corners) < 3:
            return np.zeros((0, 3), np.int64)
        if mode == 6:
            return np.stack([np.full(len(corners) - 2, corners[0]), corners[1:-1], corners[2:]], axis=1)
        strip = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
        strip[1::2] = strip[1::2, ::-1]
        return strip

    def look(self, attributes: dict[str, Any], material: _Material, count: int) -> dict[str, Any]:
        """Fields of `Part` that say its colour."""
        look: dict[str, Any] = {}
        factor = material.factor
        rgb = factor[:3]
        if material.texture is not None:
            uvs, texture = self.mapped(attributes, material, count)
            if uvs is None:
                self.notes.append(Lost.of("texture", material.name, "its primitive has no UVs"))
            else:
                look |= {"uvs": uvs, "texture": texture}
                rgb = np.ones(3)
        if "COLOR_0" in attributes:
            colors = self.vertex_colors(attributes, count)
            look["colors"] = srgb_from_linear(colors * rgb).astype(np.float32)
            rgb = np.ones(3)
        look["base_color"] = tuple(float(v) for v in [*srgb_from_linear(rgb), factor[3]])
        return look

    def vertex_colors(self, attributes: dict[str, Any], count: int) -> np.ndarray:
        accessor = self.document.item(self.document.listed("accessors"), attributes["COLOR_0"], "accessor")
        accessor["normalized"] = True  # some exporters forget it for whole numbers; floats do not mind
        width = 3 if accessor.get("type") == "VEC3" else 4
        colors = self.document.attribute(attributes, "COLOR_0", width)[:, :3]
        return self.counted(np.nan_to_num(colors, nan=1.0), count, "COLOR_0")

    def mapped(
        self, attributes: dict[str, Any], material: _Material, count: int
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """UVs ``[V, 2]``, v up, and the texture that goes with them: a clamped one has its border drawn out."""
        name, texture = f"TEXCOORD_{material.coordinates}", material.texture
        if name not in attributes or texture is None:
            return None, None
        uvs = self.counted(self.document.attribute(attributes, name, 2), count, name).astype(np.float64)
        if material.transform is not None:
            uvs = uvs @ material.transform[:, :2].T + material.transform[:, 2]
        for axis, wrap in enumerate(material.wraps):
            if wrap == _CLAMP:
                uvs[:, axis], texture = self.textures.clamped(uvs[:, axis], texture, 1 - axis)
            elif wrap == _MIRROR:
                uvs[:, axis] *= 0.5  # the texture holds its mirror image as well
        uvs[:, 1] = 1 - uvs[:, 1]  # glTF counts v downwards
        return np.ascontiguousarray(uvs, np.float32), texture

    def counted(self, values: np.ndarray, count: int, name: str) -> np.ndarray:
        if len(values) != count:
            raise self.document.refuse(f"{name} must have one value for each of the {count:,} vertices", len(values))
        return values

    def skinned(
        self, node: dict[str, Any], attributes: dict[str, Any], points: np.ndarray, world: np.ndarray
    ) -> np.ndarray:
        """Vertices in the pose of the skin's joints (glTF 2.0, section 3.7.3.3); the node's place is ignored."""
        document = self.document
        skin = document.item(document.listed("skins"), node["skin"], "skin")
        joints = document.items(skin, "joints", int)
        if self.worlds is None:
            self.worlds = world_matrices(document)
        complete = {"JOINTS_0", "WEIGHTS_0"} <= set(attributes) and all(joint in self.worlds for joint in joints)
        if not complete or not joints:
            self.notes.append("a skin without joints or weights was ignored")
            return points @ world[:3, :3].T + world[:3, 3]
        places = np.stack([self.worlds[joint] for joint in joints])  # [J, 4, 4]
        if "inverseBindMatrices" in skin:
            inverse = document.attribute({"inverse": skin["inverseBindMatrices"]}, "inverse", 16)
            if len(inverse) < len(joints):
                raise document.refuse(f"a skin needs {len(joints)} inverse bind matrices", len(inverse))
            places = places @ inverse[: len(joints)].reshape(-1, 4, 4).transpose(0, 2, 1)
        index = self.counted(document.attribute(attributes, "JOINTS_0", 4), len(points), "JOINTS_0").astype(np.int64)
        weights = self.counted(document.attribute(attributes, "WEIGHTS_0", 4), len(points), "WEIGHTS_0")
        if index.size and int(index.max()) >= len(joints):
            raise document.refuse(f"JOINTS_0 must lie below {len(joints)}", int(index.max()))
        posed = np.zeros_like(points)
        for column in range(4):
            matrices = places[index[:, column]]  # [V, 4, 4]
            moved = np.einsum("vij,vj->vi", matrices[:, :3, :3], points) + matrices[:, :3, 3]
            posed += weights[:, column, None] * moved
        return posed / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)

    def material(self, index: Any) -> _Material:
        """The material of that number; the default one, white, without."""
        entry = {} if index is None else self.document.item(self.document.listed("materials"), index, "material")
        if index not in self.materials:
            self.materials[index] = self.read_material(entry)
        return self.materials[index]

    def read_material(self, entry: dict[str, Any]) -> _Material:
        document = self.document
        name = str(entry.get("name", ""))
        old = document.child(document.child(entry, "extensions"), "KHR_materials_pbrSpecularGlossiness")
        look = old or document.child(entry, "pbrMetallicRoughness")
        keys = ("diffuseFactor", "diffuseTexture") if old else ("baseColorFactor", "baseColorTexture")
        factor = np.clip(document.numbers(look, keys[0], 4, (1, 1, 1, 1)), 0, 1)
        if self.factors == "srgb" or (self.factors == "guess" and _is_displayed(factor[:3])):
            factor = np.array([*linear_from_srgb(factor[:3]), factor[3]])
            self.notes.append("base colours that were stored as displayed (sRGB) were taken as such")
        if entry.get("alphaMode", "OPAQUE") != "OPAQUE":
            self.notes.append("transparent materials are taken as opaque")
        glow = document.numbers(entry, "emissiveFactor", 3, (0, 0, 0)).max() if factor[:3].max() < 0.05 else 0
        if "emissiveTexture" in entry or glow > 0:  # lamps on what has colours of its own say nothing
            self.notes.append("the light that materials emit was left out")
        if keys[1] not in look:
            return _Material(factor, name=name)
        info = document.child(look, keys[1])
        texture = document.item(document.listed("textures"), info.get("index"), "texture")
        pixels = self.image(texture)
        if pixels is None:
            return _Material(factor, name=name)
        wraps = self.wraps(texture)
        pixels = _folded(pixels, factor[:3])
        for axis, wrap in ((1, wraps[0]), (0, wraps[1])):
            if wrap == _MIRROR:
                pixels = np.concatenate([pixels, np.flip(pixels, axis)], axis=axis)
        extension = document.child(document.child(info, "extensions"), "KHR_texture_transform")
        coordinates = document.whole(extension, "texCoord", document.whole(info, "texCoord", 0))
        return _Material(factor, pixels, coordinates, self.transform(extension), wraps, name)

    def wraps(self, texture: dict[str, Any]) -> tuple[int, int]:
        if "sampler" not in texture:
            return 10497, 10497
        sampler = self.document.item(self.document.listed("samplers"), texture["sampler"], "sampler")
        return self.document.whole(sampler, "wrapS", 10497), self.document.whole(sampler, "wrapT", 10497)

    def transform(self, extension: dict[str, Any]) -> np.ndarray | None:
        """``[2, 3]`` of KHR_texture_transform: scale, then rotation, then offset, on UVs with v down."""
        if not extension:
            return None
        (angle,) = self.document.numbers({"r": [extension.get("rotation", 0)]}, "r", 1)
        scale = self.document.numbers(extension, "scale", 2, (1, 1))
        offset = self.document.numbers(extension, "offset", 2, (0, 0))
        c, s = np.cos(angle), np.sin(angle)
        return np.column_stack([np.array([[c, s], [-s, c]]) * scale, offset])

    def image(self, texture: dict[str, Any]) -> np.ndarray | None:
        document = self.document
        webp = document.child(document.child(texture, "extensions"), "EXT_texture_webp")
        index = webp.get("source", texture.get("source"))
        if index is None:
            self.notes.append(Lost.of("texture", str(texture.get("name", "")), "it has no PNG, JPEG or WebP picture"))
            return None
        entry = document.item(document.listed("images"), index, "image")
        if index not in self.images:
            name, data = str(entry.get("name", f"image {index}")), None
            uri = entry.get("uri")
            if "bufferView" in entry:
                data = document.view_bytes(entry["bufferView"])
            elif isinstance(uri, str) and uri.startswith("data:"):
                data = document.data_uri(uri)
            elif isinstance(uri, str):
                name, data = uri, self.textures.beside(uri)
            else:
                self.notes.append(Lost.of("texture", name, "it has neither bytes nor a file"))
            self.images[index] = None if data is None else self.textures.decode(data, name)
        return self.images[index]


def _is_displayed(factor: np.ndarray) -> bool:
    """Whether a factor ``[3]`` is bytes over 255, which no conversion to linear light leaves behind."""
    # Multiples of 1/20 prove nothing: people type them, and 0.2 is 51/255.
    bytes_, twentieths = factor * 255, factor * 20
    return bool(
        (np.abs(bytes_ - bytes_.round()) < 5e-4).all() and (np.abs(twentieths - twentieths.round()) > 1e-4).any()
    )


def _folded(pixels: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Texture times a linear factor ``[3]``, both taken in linear light."""
    if np.allclose(factor, 1, atol=1e-4):
        return pixels
    levels = linear_from_srgb(np.arange(256) / 255)
    tables = (srgb_from_linear(levels[:, None] * factor) * 255 + 0.5).astype(np.uint8)  # [256, 3]
    return np.stack([tables[pixels[..., channel], channel] for channel in range(3)], axis=-1)
