"""Object names out of file names: `SM_Chair_Wooden02_v3.FBX` says "chair wooden", the rest is housekeeping.

Rules look at the shape of a token (digits, capitals, underscores) and at short tables of words that modelling tools
and asset stores add. They are made for names: free text is told apart by `is_file_name` and left alone.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile

from ..words import table
from .clean import apply

EXTENSIONS = table("""
    glb gltf fbx obj blend blend1 stl ply usd usda usdc usdz dae 3ds max ma mb c4d skp lwo x3d wrl off vox step stp
    iges igs abc zip rar 7z tar gz png jpg jpeg tga webp bmp tif tiff splat ksplat spz sog
""")
# words that name no object; a name made of nothing else is a placeholder
PLACEHOLDERS = table("""
    untitled unnamed noname none null nan n/a unknown default test testing temp tmp new mesh model object obj scene
    asset item thing node group geometry geo part collection export import img image dsc screenshot asdf qwerty foo
    lorem ipsum sample demo copy final draft wip sketchfab thingiverse scan 3d project material
""")
_ANYWHERE = table("animated rigged unrigged gameready pbr unwrapped wip fbx gltf glb")
_AT_END = table("""
    final copy export exported backup bak tmp temp test demo sample download free mesh model asset geo grp prefab rig
    anim lp hp uv uvs hd uhd baked textured
""")
_PREFIXES = table("sm sk geo grp msh mdl prop props env chr char veh wpn")  # only before an underscore
_DANGLING = table("with and of the for w")
_NUMBERED_KINDS = table("number digit type mark mk route channel")  # "number 5" is an object
_BRANDS = table("playstation youtube macbook delorean mcdonalds lamborghini")
# adjectives that asset names put behind their noun: "axe small", "bookcase closed wide"
_POSTPOSED = table("""
    small big large huge tiny tall short long low high wide narrow thick thin medium flat round rounded square
    rectangular simple basic detailed fancy open opened closed broken crushed cracked stacked full empty half whole
    single double triple individual golden gold silver bronze wooden iron stone red green blue yellow white black dark
    light raw cooked cushioned decorative standing angry evil modern vintage old electric modular upper lower mobile
    celtic king twin bunk
""")
_VERSION = re.compile(r"(?:v|ver|version|rev|r)\d+(?:\.\d+)*|lod\d+|[1248]k", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_BRACKETS = re.compile(r"\(\s*v?\d*(?:\.\d+)*\s*\)|\[\s*v?\d*(?:\.\d+)*\s*\]", re.IGNORECASE)
_NUMBERED = re.compile(r"([^\W\d_]{3,})[-.]?\d+")  # Rock7, chair.001; not P90, ak47
_COUNTED = re.compile(r"\d+(?!d)([^\W\d_]{3,})", re.IGNORECASE)  # 2With, 3Full; not 3d, 3dprinted, 1st, 50s
_NUMBER = re.compile(r"#?\d+(?:[.,]\d+)*|\(\d+\)")
_CAPITALS = re.compile(r"(?<=[A-Z])(?=[A-Z][a-z]{2})|(?<=[a-z]\d)(?=[A-Z][a-z])")  # SUVCar, Potion4Full
# kinds of a thing (a stool is no chair) are left out
_SYNONYMS = """
    sofa/couch/settee, television/TV set/telly, airplane/aeroplane/plane, bicycle/bike, car/automobile,
    police car/cop car/patrol car, refrigerator/fridge, donut/doughnut, hamburger/burger,
    trash can/garbage can/dustbin/trashcan, spaceship/space ship/starship/spacecraft, rock/stone/boulder,
    nightstand/night stand/bedside table, fire truck/fire engine, truck/lorry, eggplant/aubergine, gun/firearm,
    gravestone/tombstone/headstone, ship/vessel, house/dwelling, shop/store, lamp/light, cabinet/cupboard,
    wardrobe/closet, bunny/rabbit, chest/coffer, streetlight/street lamp, french fries/fries/chips,
    popsicle/ice lolly, soda can/can of soda, carpet/rug, pillow/cushion, windmill/wind mill, bucket/pail,
    robot/android, tap/faucet, stove/cooker, mobile phone/cell phone/cellphone, backpack/rucksack,
    potted plant/plant in a pot
"""
Groups = Sequence[Sequence[str]]  # of names that can stand for each other
GROUPS: Groups = [group.strip().split("/") for group in _SYNONYMS.split(",")]


def is_file_name(text: str) -> bool:
    """Whether a text looks like a file or node name rather than like words meant to be read."""
    tokens = text.split()
    if has_extension(text) and ("/" in text or "\\" in text):
        return True  # a path, whose folders may have long names
    if not tokens or len(tokens) > 6:
        return False
    if has_extension(text):
        return True
    if any("_" in token or split_camel(token) != token or _UUID.fullmatch(token) for token in tokens):
        return True
    if len(tokens) <= 4 and any(_COUNTED.fullmatch(token) for token in tokens[1:]):
        return True
    ends_in_number = bool(_NUMBERED.fullmatch(tokens[-1])) or bool(re.fullmatch(r"#?0\d+|\d\d?|\(\d+\)", tokens[-1]))
    return len(tokens) <= 3 and ends_in_number


def has_extension(text: str) -> bool:
    """Whether a text ends in ``.`` and a file extension of meshes, splats, pictures or archives."""
    stem, dot, suffix = text.rpartition(".")
    return bool(stem and dot) and suffix.casefold() in EXTENSIONS


def is_id(token: str) -> bool:
    """Whether a token is a hash, UUID or serial number: letters and digits without a word in them."""
    if _UUID.fullmatch(token):
        return True
    digits = sum(char.isdigit() for char in token)
    if digits == len(token):
        return digits >= 5
    if not token.isascii() or not token.isalnum() or digits < 2:
        return False
    is_hex = re.fullmatch(r"[0-9a-fA-F]+", token) is not None
    changes = len(re.findall(r"(?<=\d)(?=[a-zA-Z])|(?<=[a-zA-Z])(?=\d)", token))
    return (is_hex and len(token) >= 8) or (len(token) >= 10 and changes >= 4)


def split_camel(token: str) -> str:
    """``SmallPalmTree`` -> ``Small Palm Tree``; brands such as ``iPhone`` and ``McDonald`` stay whole."""
    if token.casefold() in _BRANDS or "://" in token:
        return token
    spaced = _CAPITALS.sub(" ", token)
    out: list[str] = []
    start = 0  # of the word that ``i`` is in
    for i, char in enumerate(spaced):
        if char == " ":
            start = i + 1
        elif char.isupper() and i - start > 1 and spaced[i - 1].islower() and spaced[start:i] not in ("Mc", "Mac"):
            out.append(" ")
            start = i
        out.append(char)
    return "".join(out)


def object_name(text: str) -> tuple[str, tuple[str, ...]]:
    """The words of a file name that say what the object is.

    Args:
        text: a clean text (see `captions.clean.clean_text`).

    Returns:
        The name, empty when nothing is left, and the names of the steps that changed it: ``path``, ``extension``,
        ``split``, ``id``, ``version``, ``number``, ``tag``, ``dangling``. A name without debris comes back as it is.
    """
    notes: list[str] = []
    stem = apply({"number": lambda name: _BRACKETS.sub(" ", name)}, _stem(text, notes), notes)
    steps = {
        "id": lambda tokens: [token for token in tokens if not is_id(token)],
        "version": lambda tokens: [token for token in tokens if not _VERSION.fullmatch(token)],
        "number": lambda tokens: _without_numbers(tokens, is_identifier=bool(notes)),
        "tag": _without_tags,
        "dangling": lambda tokens: _without_dangling(tokens) if notes else tokens,
    }
    return " ".join(apply(steps, _split(stem, notes), notes)), tuple(dict.fromkeys(notes))


def natural_order(name: str) -> str:
    """Trailing adjectives moved to the front: ``fence low broken`` -> ``low broken fence``.

    Names of one word, and names made of such words only, come back as they are.
    """
    tokens = name.split()
    trailing = list(takewhile(lambda token: token.casefold() in _POSTPOSED, reversed(tokens)))
    if len(trailing) in (0, len(tokens)):
        return name
    return " ".join([*reversed(trailing), *tokens[: -len(trailing)]])


def _stem(text: str, notes: list[str]) -> str:
    """The last part of a path that says something, without its extension."""
    if not has_extension(text):
        return text
    parts = [part for part in re.split(r"[\\/]", text) if part.strip()] or [text]
    stem = parts[-1]
    while has_extension(stem):
        stem = stem.rpartition(".")[0]
        notes.append("extension")
    if parts != [text]:
        notes.append("path")
        if len(parts) > 1 and stem.casefold() in PLACEHOLDERS:  # files/models/cannon/model.gltf
            stem = parts[-2]
    return stem


def _split(stem: str, notes: list[str]) -> list[str]:
    """Tokens at spaces, underscores and capitals; lower case when the name was written as an identifier."""
    tokens = stem.split()
    pieces = [piece for token in tokens for piece in token.split("_") if piece]
    if len(pieces) > 1 and "_" in tokens[0] and pieces[0].casefold() in _PREFIXES:
        pieces = pieces[1:]
        notes.append("tag")
    hyphenated = len(pieces) == 1 and ("extension" in notes or "path" in notes) and not is_id(pieces[0])
    if hyphenated:
        pieces = [piece for piece in pieces[0].split("-") if piece]
    parts = [part for piece in pieces for part in (split_camel(piece).split() if not is_id(piece) else [piece])]
    if parts == tokens and not notes:
        return tokens
    if parts != tokens:
        notes.append("split")
    return [part.lower() for part in parts]


def _without_numbers(tokens: list[str], *, is_identifier: bool) -> list[str]:
    """Without running numbers; counts and years in front, model numbers behind a word and 3d, P90, 1st stay."""
    # Between words that were written apart a number means something ("iPhone 14 Pro"), in an identifier it does not.
    out = []
    for i, token in enumerate(tokens):
        numbered, counted = _NUMBERED.fullmatch(token), _COUNTED.fullmatch(token) if i else None  # 4runner stays
        if numbered or counted:
            match = numbered or counted
            out.append(match.group(1) if match else token)
        elif (
            not _NUMBER.fullmatch(token)
            or _says_something(tokens, i)
            or (not is_identifier and 0 < i < len(tokens) - 1 and token[0] in "123456789")
        ):
            out.append(token)
    return out


def _says_something(tokens: list[str], i: int) -> bool:
    """Whether the number at ``i`` is a count ("2 chairs"), a year ("1967 mustang") or a model ("boeing 747")."""
    token = tokens[i]
    if not token.isdigit() or token[0] == "0":
        return False
    if i == 0 and len(tokens) > 1:
        plural = tokens[1].endswith("s") and not tokens[1].endswith("ss")
        return plural or re.fullmatch(r"1[89]\d\d|20\d\d", token) is not None
    if i and tokens[i - 1].casefold() in _NUMBERED_KINDS:
        return True
    words = [t for t in tokens[:i] if not t.isdigit() and t.casefold() not in PLACEHOLDERS]
    return 3 <= len(token) <= 4 and bool(words)


def _without_tags(tokens: list[str]) -> list[str]:
    left = [token for token in tokens if token.casefold().strip("()[]") not in _ANYWHERE]
    while len(left) > 1 and left[-1].casefold().strip("()[]") in _AT_END:
        left = left[:-2] if len(left) > 2 and [t.casefold() for t in left[-2:]] == ["3d", "model"] else left[:-1]
    return left


def _without_dangling(tokens: list[str]) -> list[str]:
    """``watch tower w roof`` -> ``watch tower with roof``; words that lost what they led to go."""
    left = ["with" if t == "w" and 0 < i < len(tokens) - 1 else t for i, t in enumerate(tokens)]
    while left and (left[-1].casefold() in _DANGLING or (len(left) > 1 and re.fullmatch("[A-Za-z]", left[-1]))):
        left = left[:-1]
    return left


def synonyms_of(name: str, groups: Groups = GROUPS) -> list[str]:
    """Other names of the same thing, whatever the capitals of ``name``.

    None is known of a name outside the groups, nor of one in several of them, which means several things.
    """
    key = name.casefold()
    holding = [group for group in groups if key in map(str.casefold, group)]
    return [other for other in holding[0] if other.casefold() != key] if len(holding) == 1 else []


def with_group(names: Iterable[str]) -> Groups:
    """Our own groups and one more, which wins where a group of ours has one of its names as well."""
    group = list(names)
    said = set(map(str.casefold, group))
    return [group, *(other for other in GROUPS if said.isdisjoint(map(str.casefold, other)))]
