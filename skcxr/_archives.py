"""What is looked at in a skops archive before skops sees it: numbers and words, as it writes them.

skops makes only what it is told to trust. It does not count: a file of a few kilobytes can ask
for terabytes, or refer to itself so often that nothing ever ends. And of what it can make, most
is never in a model here.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from typing import Any

import numpy as np

from skcxr._model_files import ContentError, parse_json, require

_SCHEMA = "schema.json"
_MOST_SCHEMA = 8_000_000  # bytes
_MOST_NODES = 20_000  # things in a model, each of which skops takes 0.1 milliseconds for
_MOST_DIRECTORY = 2_000_000  # bytes of names in an archive
_MEMBER = re.compile(r"[0-9a-f-]{1,40}\.(npy|bin)")

# how skops makes things -> the beginning of the names of what may be made so
_LOADERS = {
    "BytesNode": "builtins.",
    "BytearrayNode": "builtins.",
    "ConstructorFromReduceNode": "skcxr.persistence._Saved",
    "DTypeNode": "numpy.",
    "DefaultDictNode": "collections.",
    "DictNode": "",
    "FunctionNode": "",
    "JsonNode": "",
    "ListNode": "builtins.",
    "LossNode": "sklearn.",
    "MaskedArrayNode": "numpy.",
    "NdArrayNode": "numpy.",
    "ObjectNode": "",
    "RandomStateNode": "numpy.",
    "SetNode": "builtins.",
    "SliceNode": "builtins.",
    "TreeNode": "",  # which skops does not trust, and says so
    "TupleNode": "",
    "TypeNode": "",
}
_ENDINGS = {"NdArrayNode": "npy", "BytesNode": "bin", "BytearrayNode": "bin"}


def check_archive(content: bytes, name: str) -> None:
    """Raise ContentError where an archive is not as skops writes it, or unfit for loading."""
    sizes = _check_members(content, name)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in sizes:
            if member.endswith(".npy"):
                _check_numbers(archive.read(member), f"{member} in {name}")
        schema = parse_json(archive.read(_SCHEMA), f"{_SCHEMA} in {name}")
    require(isinstance(schema, dict), f"{_SCHEMA} in {name} is no dict")
    try:
        _check_schema(schema, sizes, name)
    except RecursionError as error:
        raise ContentError(f"{_SCHEMA} in {name} is nested too deeply") from error


def _check_members(content: bytes, name: str) -> dict[str, int]:
    """Size of each member."""
    end = content[-22:]  # of an archive without a comment
    require(end[:4] == b"PK\5\6", f"{name} is no archive of skops, or is damaged")
    require(int.from_bytes(end[12:16], "little") <= _MOST_DIRECTORY, f"{name} has too many members")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            packed = any(item.compress_type != zipfile.ZIP_STORED for item in members)
            require(not packed, f"{name} is compressed, as save_model never does and bombs are")
            sizes = {item.filename: item.file_size for item in members}
            for item in members:
                known = item.filename == _SCHEMA or _MEMBER.fullmatch(item.filename)
                require(known, f"{name} has a member {item.filename!r}, which skops never writes")
                require(not item.flag_bits & 1, f"{name} is encrypted")
            require(len(sizes) == len(members), f"{name} has two members of one name")
            overlap = sum(sizes.values()) > len(content)
            require(not overlap, f"{name} has members that overlap or are cut off")
            require(_SCHEMA in sizes, f"{name} has no {_SCHEMA}")
            require(sizes[_SCHEMA] <= _MOST_SCHEMA, f"{_SCHEMA} in {name} is too large")
            damaged = archive.testzip()
            require(damaged is None, f"{damaged} in {name} is damaged")
    except ContentError:
        raise
    except Exception as error:  # zipfile raises what it likes at damaged archives
        raise ContentError(f"{name} is no archive of skops, or is damaged: {error}") from error
    return sizes


def _check_numbers(content: bytes, name: str) -> None:
    """An array of numbers, all of which are there."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        known = {(1, 0): np.lib.format.read_array_header_1_0,
                 (2, 0): np.lib.format.read_array_header_2_0}  # fmt: skip
        require(version in known, f"{name} is no array as skops writes one")
        shape, _, dtype = known[version](stream)
    except ContentError:
        raise
    except Exception as error:
        raise ContentError(f"{name} is no array: {error}") from error
    require(not dtype.hasobject, f"{name} is a pickle, which is not loaded")
    n_bytes = len(content) - stream.tell()
    wanted = dtype.itemsize
    for side in shape:
        require(side >= 0, f"{name} has the shape {shape}")
        wanted *= side
    require(dtype.itemsize or 0 in shape, f"{name} holds nothing, many times")
    require(wanted == n_bytes, f"{name} has {n_bytes:,} bytes of numbers and should have {wanted}")


def _check_schema(schema: dict[str, Any], sizes: dict[str, int], name: str) -> None:
    """Nothing is referred to but in full, as skops writes it: nothing is larger than it looks."""
    n_inside: dict[int, int] = {}  # things in what has this number
    readers: dict[str, int] = {}  # the one number under which a member is read
    n_nodes = 0

    def check(value: Any) -> int:
        nonlocal n_nodes
        if isinstance(value, list):
            return sum(map(check, value))
        if not isinstance(value, dict):
            return 0
        count = 1 + sum(map(check, value.values()))
        if "__loader__" in value:
            n_nodes += 1
            require(n_nodes <= _MOST_NODES, f"{name} holds more than {_MOST_NODES:,} things")
            _check_node(value, sizes, readers, name)
            number = value["__id__"]
            same = n_inside.setdefault(number, count) == count
            require(same, f"{name} has two things with the number {number}")
        return count

    require("__loader__" in schema, f"{_SCHEMA} in {name} holds nothing")
    check(schema)


def _check_node(
    node: dict[str, Any], sizes: dict[str, int], readers: dict[str, int], name: str
) -> None:
    loader, number = node["__loader__"], node.get("__id__")
    module, kind = node.get("__module__"), node.get("__class__")
    known = isinstance(loader, str) and loader in _LOADERS
    require(known, f"{name} holds a {_title(loader)}, which is not trusted")
    whole = isinstance(module, str) and isinstance(kind, str) and type(number) is int and number > 0
    require(whole, f"{_SCHEMA} in {name} has something without class, module or number")
    what = f"{module}.{kind}"
    known = what.startswith(_LOADERS[loader])
    require(known, f"{name} holds {what!r} by a {loader}, which is not trusted")
    if loader == "JsonNode":
        text = node.get("content")
        require(isinstance(text, str), f"{_SCHEMA} in {name} has a value that is no text")
        json.loads(str(text))
    if "file" not in node:
        return
    member = node["file"]
    fits = isinstance(member, str) and member in sizes
    require(fits, f"{_SCHEMA} in {name} names {member!r}, which is not in it")
    fits = str(member).endswith(f".{_ENDINGS.get(loader)}")
    require(fits, f"{_SCHEMA} in {name} names {member!r} as what it is not")
    once = readers.setdefault(str(member), int(str(number))) == number
    require(once, f"{_SCHEMA} in {name} reads {member!r} for several things")


def _title(loader: Any) -> str:
    known = {
        "CachedNode": "reference",
        "MethodNode": "method",
        "OperatorFuncNode": "function",
        "PartialNode": "partial function",
        "QuantileForestNode": "forest",
        "RandomGeneratorNode": "random Generator",
        "SparseMatrixNode": "sparse matrix",
    }
    return known.get(loader, repr(loader)) if isinstance(loader, str) else repr(loader)
