"""Load models that were mutated in every way that their format allows.

    python tests/fuzz/fuzz_models.py --mutations 20000 --seed 0

An input is the folder of a model as a zip archive. Some mutations are of bytes. The others know
the format: they change a value of ``config.json``, of a header of safetensors or of a schema of
skops and then make sizes and checksums right again, as a forger would. Beside what the harness
sees, a start of code or of a program, a file that is written and a look for the network are
failures.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import random
import re
import struct
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from harness import Target, Wrong, main
from PIL import Image

Files = dict[str, bytes]


# --------------------------------------------------------------------------------------------
# seeds: models of every kind, as files
# --------------------------------------------------------------------------------------------


def make_seeds(folder: Path) -> dict[str, Files]:
    """Small models of every kind that is saved, as their files."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import StackingClassifier, VotingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from skcxr import CXRClassifier, CXRFeatures, ImageLoader, save_model
    from skcxr.outliers import OutlierGate

    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (16, 16, 16)).astype(np.uint8)
    images[::2, 5:7] = 250
    images[1::2, :, 5:7] = 250
    labels = np.array(["h", "v"])[np.arange(16) % 2]
    findings = np.stack([np.arange(16) % 2, np.arange(16) % 3 == 0], axis=1).astype(float)
    files = [str(folder / f"{index}.png") for index in range(16)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)

    def small(**params: Any) -> CXRClassifier:
        tiny = {"backbone": "cxrnet", "net_params": {"module__width": 2}, "image_size": 8}
        return CXRClassifier(**{**tiny, "max_epochs": 1, "random_state": 0, **params})

    def rows() -> Any:
        return make_pipeline(
            ImageLoader(4, output="rows"), StandardScaler(), LogisticRegression(C=0.1)
        )

    features = CXRFeatures(
        "cxrnet", weights=None, image_size=16, random_state=0,
    )  # fmt: skip
    models = {
        "classifier": small().fit(images, labels),
        "rows": CXRClassifier(max_epochs=1, random_state=0).fit(
            images[:, :3, :3].reshape(16, -1) / 255.0, labels
        ),
        "findings": small().fit(images, findings),
        "features": features.fit(files),
        "loader": make_pipeline(ImageLoader(8), small()).fit(files, labels),
        "linear": rows().fit(files, labels),
        "voting": VotingClassifier([("a", small()), ("b", rows())], voting="soft").fit(
            files, labels
        ),
        "stacking": StackingClassifier([("a", rows())], cv=2).fit(files, labels),
        "calibrated": CalibratedClassifierCV(small(), cv=2).fit(files, labels),
        "search": GridSearchCV(small(), {"lr": [0.01, 0.1]}, cv=2).fit(files, labels),
        "gate": OutlierGate(n_synthetic=100, random_state=0).fit(images),
    }
    seeds = {}
    for name, model in models.items():
        save_model(model, folder / name)
        seeds[name] = {file.name: file.read_bytes() for file in (folder / name).iterdir()}
    return seeds


# --------------------------------------------------------------------------------------------
# mutations
# --------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 255, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308,
    5e-324, "", "a", "auto", "cpu", "cuda:0", "\ud800", "\x00", "../x", "/dev/zero", "x.pt",
    "os.system", "builtins", "eval", "timm:hf-hub:a/b", "timm:resnet18",
    "xrv:densenet121-res224-all", "resnet18", "smallnet", "DEFAULT", "float16", "<U5", "|O",
    [], {}, [[]], [0], [0] * 50, ["a", 1], {"a": 1}, {"tuple": [8, 8]},
    {"tuple": [10**6, 10**6]}, {"float": "nan"}, {"float": "inf"},
    {"dict": [[1, 2]]}, {"torch.optim": "SGD"}, {"torch.optim": "sys"}, {"CXRAugmentation": {}},
    {"module__width": 4}, {"module__depth": 10**9}, {"compile": True}, {"callbacks": ["x"]},
    {"optimizer__betas": {"tuple": [0.1, 0.2]}},
]  # fmt: skip
DTYPES = ["F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F4", "X9", ""]
HOSTILE = [
    ("builtins", "eval"), ("builtins", "exec"), ("builtins", "print"), ("os", "system"),
    ("posix", "system"), ("subprocess", "Popen"), ("pickle", "loads"), ("joblib", "load"),
    ("numpy", "load"), ("numpy.random", "seed"), ("torch", "load"), ("functools", "partial"),
    ("operator", "methodcaller"), ("sklearn.tree._tree", "Tree"), ("importlib", "import_module"),
    ("sklearn.metrics", "silhouette_score"), ("sklearn.datasets", "load_files"),
    ("skcxr.persistence", "_Saved"), ("skcxr.persistence", "load_model"), ("pathlib", "Path"),
    ("sklearn.preprocessing._function_transformer", "FunctionTransformer"), ("joblib", "Memory"),
    ("sklearn.pipeline", "Pipeline"), ("numpy", "ndarray"), ("builtins", "dict"), ("this", "s"),
]  # fmt: skip
NODES = [
    "DictNode", "DefaultDictNode", "ListNode", "SetNode", "TupleNode", "BytesNode", "SliceNode",
    "FunctionNode", "MethodNode", "PartialNode", "TypeNode", "ConstructorFromReduceNode",
    "ObjectNode", "JsonNode", "OperatorFuncNode", "NdArrayNode", "MaskedArrayNode", "DTypeNode",
    "RandomStateNode", "RandomGeneratorNode", "SparseMatrixNode", "LossNode", "TreeNode",
    "CachedNode", "ReduceNode", "X",
]  # fmt: skip
PICKLE = b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R."


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON document with each of its keys."""
    ahead = [value]
    while ahead:
        value = ahead.pop()
        for key, each in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            if isinstance(each, dict | list):
                ahead.append(each)


def mutate_json(document: Any, rng: random.Random, values: list[Any]) -> None:
    """Change a document in one place."""
    everywhere = list(places(document))
    container, key = rng.choice(everywhere)
    how = rng.randrange(8)
    if how < 3:
        container[key] = json.loads(json.dumps(rng.choice(values)))
    elif how == 3:
        del container[key]
    elif how == 4:
        other, name = rng.choice(everywhere)
        if isinstance(other, dict) or name < len(other):
            taken = other.get(name) if isinstance(other, dict) else other[name]
            container[key] = json.loads(json.dumps(taken))
    elif how == 5 and isinstance(container, dict):
        value = container.pop(key)
        container[rng.choice([*container, "x", "tuple", "dict", "__id__"])] = value
    elif how == 6:
        for _ in range(rng.choice([1, 3, 100, 800])):
            container[key] = [container[key]]
    else:
        value = container[key]
        if isinstance(value, bool | None):
            container[key] = not value
        elif isinstance(value, int):
            container[key] = value + rng.choice([-1, 1, 2**16, -(2**40)])
        elif isinstance(value, float):
            container[key] = value * rng.choice([-1, 1e9, 0])
        elif isinstance(value, str):
            at = rng.randrange(len(value) + 1)
            container[key] = value[:at] + rng.choice(["", "x", "\n", "9"]) + value[at + 1 :]
        elif isinstance(value, list):
            container[key] = value * rng.choice([0, 2, 20])
        else:
            container[key] = [*value]


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(data) + 1) if data else 0
        how = rng.randrange(6)
        if how == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at:at] = rng.randbytes(rng.choice([1, 4, 100]))
        elif how == 2:
            del data[at : at + rng.choice([1, 8, 1000])]
        elif how == 3:
            del data[at:]
        elif how == 4 and data:
            data[at : at + 4] = struct.pack("<i", rng.choice([0, -1, 1, 2**31 - 1]))
        else:
            end = at + rng.choice([1, 8, 64])
            data[at:at] = data[at:end]
    return bytes(data)


def mutate_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Another header, or other numbers, or none of it."""
    how = rng.randrange(8)
    if how == 0:
        return rng.choice([b"", PICKLE, b"PK\3\4" + PICKLE, b"\xff" * 8 + b"{}", b"\0" * 8])
    length = struct.unpack("<Q", content[:8])[0]
    header, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
    if how == 1:
        size = rng.choice([0, 1, length - 1, length + 8, 2**31, 2**63, 2**64 - 1])
        return struct.pack("<Q", size) + content[8:]
    if how == 2:
        numbers = bytearray(rest)
        at = rng.randrange(len(numbers) // 4) * 4
        numbers[at : at + 4] = struct.pack("<I", rng.choice([0x7FC00000, 0x7F800000, 0, 1]))
        return content[: 8 + length] + bytes(numbers)
    names = [name for name in header if name != "__metadata__"]
    entry = header[rng.choice(names)]
    if how == 3:
        entry["dtype"] = rng.choice(DTYPES)
    elif how == 4:
        numbers = [0, 1, -1, 2**31, 2**63, 2**64, *entry["shape"]]
        entry["shape"] = [rng.choice(numbers) for _ in range(rng.randrange(5))]
    elif how == 5:
        entry["data_offsets"] = [rng.choice([0, -1, 4, len(rest), 2**63, *entry["data_offsets"]])
                                 for _ in range(rng.choice([1, 2, 2, 3]))]  # fmt: skip
    elif how == 6:
        header[rng.choice([*names, "x", "", "\ud800", "layers.head.weight"])] = header.pop(
            rng.choice(names)
        )
    else:
        mutate_json(header, rng, VALUES)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def mutate_skops(content: bytes, rng: random.Random) -> bytes:
    """Another schema, other members, or another archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    how = rng.randrange(10)
    arrays = [name for name in members if name.endswith(".npy")]
    packing = zipfile.ZIP_STORED
    if how < 5:
        schema = json.loads(members["schema.json"])
        for _ in range(rng.choice([1, 1, 2, 5])):
            mutate_schema(schema, rng)
        members["schema.json"] = json.dumps(schema).encode()
    elif how == 5 and arrays:
        name = rng.choice(arrays)
        members[name] = rng.choice([
            mutate_bytes(members[name], rng), PICKLE, b"PK\3\4" + members[name], array_of_objects(),
            huge_array(rng), b"",
        ])  # fmt: skip
    elif how == 6:
        name = rng.choice(["../x", "/x", "x.pkl", "schema.json", "schema.json/x", "a\\..\\b"])
        if name != "schema.json":
            members[name] = PICKLE
    elif how == 7:
        members.pop(rng.choice([*members]))
    elif how == 8:
        packing = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    else:
        return mutate_bytes(content, rng)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for name, value in members.items():
            archive.writestr(name, value)
    return stream.getvalue()


def mutate_schema(schema: Any, rng: random.Random) -> None:
    nodes = [container[key] for container, key in places(schema)
             if isinstance(container[key], dict) and "__loader__" in container[key]]  # fmt: skip
    how = rng.randrange(6)
    if not nodes or how == 0:
        mutate_json(schema, rng, VALUES)
        return
    node = rng.choice([*nodes, schema])
    if how == 1:
        node["__loader__"] = rng.choice(NODES)
    elif how == 2:
        node["__module__"], node["__class__"] = rng.choice(HOSTILE)
    elif how == 3:
        node["__module__"], node["__class__"] = rng.choice(HOSTILE)
        node["__loader__"] = rng.choice(NODES)
    elif how == 4:
        node["__id__"] = rng.choice([0, 1, "x", None, *(other.get("__id__") for other in nodes)])
    else:
        node.clear()
        node.update(json.loads(json.dumps(rng.choice(nodes))))


def array_of_objects() -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|O", "fortran_order": False, "shape": (1,)}
    )
    return stream.getvalue() + PICKLE


def huge_array(rng: random.Random) -> bytes:
    stream = io.BytesIO()
    shape = rng.choice([(2**40,), (2**31, 2**31), (10**6, 10**3), (-1,)])
    np.lib.format.write_array_header_1_0(
        stream, {"descr": rng.choice(["<f8", "|V0", "<U9"]), "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def records(config: Any) -> dict[str, Any]:
    """What a configuration says of its files, by name."""
    entries = [config, *(config.get("classifiers") or [])]
    found = [entry.get(key) for entry in entries for key in ("weights", "estimator")
             if isinstance(entry, dict)]  # fmt: skip
    return {record["file"]: record for record in found if isinstance(record, dict)}


def sealed(files: Files) -> Files:
    """The same with sizes and checksums that are right."""
    config = json.loads(files["config.json"])
    for name, record in records(config).items():
        if name in files:
            content = files[name]
            record.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    return {**files, "config.json": json.dumps(config).encode()}


def mutate(seeds: dict[str, Files], rng: random.Random) -> tuple[str, Files]:
    """A name of what was done, and the files."""
    kind = rng.choice([*seeds])
    files = dict(seeds[kind])
    how = rng.choice(["bytes", "config", "config", "config", "weights", "skops", "skops", "swap"])
    weights = [name for name in files if name.endswith(".safetensors")]
    if (how == "weights" and not weights) or (how == "skops" and "estimator.skops" not in files):
        how = "config"
    if how == "bytes":
        name = rng.choice([*files])
        files[name] = mutate_bytes(files[name], rng)
        if name != "config.json" and rng.random() < 0.5:
            files = sealed(files)
    elif how == "config":
        config = json.loads(files["config.json"])
        for _ in range(rng.choice([1, 1, 1, 3])):
            mutate_json(config, rng, VALUES)
        text = json.dumps(config)
        if rng.random() < 0.05:
            text = text.replace("0", rng.choice(["1e999999", "NaN", "9" * 5000, "-Infinity"]), 1)
        files["config.json"] = text.encode("utf-8", "surrogatepass")
    elif how == "weights":
        name = rng.choice(weights)
        files[name] = mutate_safetensors(files[name], rng)
        files = sealed(files)
    elif how == "skops":
        files["estimator.skops"] = mutate_skops(files["estimator.skops"], rng)
        files = sealed(files)
    else:
        other = seeds[rng.choice([*seeds])]
        name = rng.choice([*files])
        action = rng.randrange(3)
        if action == 0:
            files[name] = other[rng.choice([*other])]
            files = sealed(files) if name != "config.json" and rng.random() < 0.7 else files
        elif action == 1:
            del files[name]
        else:
            files["extra.pkl"] = PICKLE
    return f"{kind} {how}", files


# --------------------------------------------------------------------------------------------
# what may not happen
# --------------------------------------------------------------------------------------------

_FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile",
    "subprocess.Popen", "pty.spawn", "socket.connect", "socket.bind", "socket.getaddrinfo",
    "socket.gethostbyname", "urllib.Request", "pickle.find_class", "shutil.rmtree", "os.remove",
    "os.rename", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.truncate", "ctypes.dlopen",
)  # fmt: skip


_INSTALLED = (os.path.dirname(np.__path__[0]), os.path.dirname(os.__file__), "<frozen ")


class Watch:
    """Counts, by an audit hook, what loading a model must never do."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            mode, flags = args[1], args[2]
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
                self.seen.append(f"open {args[0]!r}")
        elif event == "exec":  # the import of an installed library is none
            if not args[0].co_filename.startswith(_INSTALLED):
                self.seen.append(f"exec {args[0]}")
        elif event == "import":
            if args[0].partition(".")[0] in ("antigravity", "this", "ctypes"):
                self.seen.append(f"import {args[0]}")
        elif event in _FORBIDDEN:
            self.seen.append(f"{event} {str(args)[:200]}")

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.seen = []
        self.on = True
        try:
            yield
        finally:
            self.on = False


# --------------------------------------------------------------------------------------------
# the target
# --------------------------------------------------------------------------------------------

NO_FOLDER = "no folder"  # what the mutations of another tool may come to


def pack(files: Files) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


@lru_cache(maxsize=32)
def unpack(data: bytes) -> Files | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return None
    return files if all(re.fullmatch(r"[\w.]{1,50}", name) for name in files) else None


def seeds_packed(folder: Path) -> dict[str, bytes]:
    return {name: pack(files) for name, files in make_seeds(folder).items()}


def mutate_packed(seeds: dict[str, bytes], rng: random.Random) -> tuple[str, bytes]:
    models = {name: files for name, data in seeds.items() if (files := unpack(data))}
    while True:
        with suppress(RecursionError):  # too deep to be written
            kind, files = mutate(models, rng)
            return kind, pack(files)


@lru_cache(maxsize=1)
def the_watch() -> Watch:
    """One for the process: an audit hook stays for good."""
    return Watch()


def prepare(folder: Path) -> None:
    """Import what a mutation may be the first to need."""
    for library in ("timm", "torchxrayvision", "torchvision.transforms.v2"):
        with suppress(ImportError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(library)
    import torch

    repr(torch.zeros(1))  # torch makes classes of its own by running text


def load(data: bytes, folder: Path) -> str:
    from skcxr import ModelFileError, load_model

    files = unpack(data)
    if files is None:
        return NO_FOLDER
    place = folder / "mutated"
    place.mkdir(exist_ok=True)
    for file in place.iterdir():
        file.unlink()
    for name, content in files.items():
        (place / name).write_bytes(content)
    watch = the_watch()
    outcome = "loaded"
    try:
        with watch.watching():
            load_model(place)
    except ModelFileError as error:
        said = "without a word of its own" if "content cannot be used" in error.reason else ""
        outcome = f"refused {said}".rstrip()
        if not str(error).isprintable():
            raise Wrong(f"a message that cannot be printed: {str(error)!r}") from error
    if watch.seen:
        raise Wrong(f"executed {watch.seen[:3]}")
    return outcome


TARGET = Target("fuzz_models", seeds_packed, mutate_packed, load, 1200, prepare)

if __name__ == "__main__":
    sys.exit(main(TARGET))
