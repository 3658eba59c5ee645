"""Weights: a file -> tensors by name -> onto a network, or an error; never a random network.

Nothing of a file is executed: safetensors holds numbers only, and of a ``.pt`` or ``.pth`` file
torch reads only what needs no code (``weights_only=True``).
"""

from __future__ import annotations

import io
import os
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from skcxr._exceptions import WeightsError

Weights = dict[str, Tensor]

SUFFIXES = (".safetensors", ".pt", ".pth")

# dicts of training scripts in which the weights lie
_INSIDE = ("state_dict", "model_state_dict", "model", "model_ema")
# what wrappers put before every name
_PREFIXES = ("module.", "model.", "backbone.", "encoder.", "net.", "network.")
# outputs of published heads, which nobody misses: ImageNet's and those of torchxrayvision
_PUBLISHED = {1000, 1001, 21841, 21843, 11821, 11221, 10450, 18}
# names of older files of torchvision: DenseNet's, then those of its vision transformers
_OLDER = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp\.)linear_1\."), r"\g<1>0."),
    (re.compile(r"(encoder_layer_\d+\.mlp\.)linear_2\."), r"\g<1>3."),
)
_PICKLES = 5  # in a file of torch before 1.6, before its numbers
_MOST_INSIDE = 100_000  # things in a tuple of a pickle
# what torch says of a file that names functions or classes (operand 149: of today's pickles)
_CODE = re.compile(r"Unsupported (global|operand 149)|unsupported GLOBAL|Can only|TorchScript")


@dataclass(frozen=True)
class Names:
    """How the names in a file become those of a network."""

    head: str | None  # of the head in the network
    body: str = ""  # before all other names of the network
    heads: tuple[str, ...] = ()  # of the head in the library's files, and of further ones
    ignored: tuple[str, ...] = ()  # beginnings of names that no network here has


def looks_like_file(weights: str | os.PathLike[str]) -> bool:
    """Whether `weights` can only be meant as a file, such as "a.pt" or "folder/a"."""
    name = os.fspath(weights)
    return (
        not isinstance(weights, str)
        or os.path.exists(name)
        or os.path.basename(name) != name
        or re.search(r"\.\w+$", name) is not None
    )


# --------------------------------------------------------------------------------------------
# a file -> tensors by name
# --------------------------------------------------------------------------------------------


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Read the tensors in a ``.safetensors``, ``.pt`` or ``.pth`` file.

    Raises
    ------
    WeightsError
        There is no such file, or it does not hold weights.
    """
    path = os.fspath(path)
    known = " or ".join((", ".join(SUFFIXES[:-1]), SUFFIXES[-1]))
    if os.path.isdir(path):
        raise WeightsError(f"weights={path!r} is a folder; give a {known} file in it")
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise WeightsError(
            f"weights={path!r} ends with {suffix!r}, which is no kind of file that is read here; "
            f"give a {known} file"
            if suffix
            else f"weights={path!r} has no extension; give a {known} file"
        )
    if not os.path.isfile(path):
        what = "is no file" if os.path.exists(path) else "does not exist"
        raise WeightsError(f"weights={path!r} {what}; give the path of a {known} file")
    n_bytes = os.path.getsize(path)
    unpacked = _size_unpacked(path)
    if unpacked > 10 * n_bytes + 10_000_000:  # torch compresses code at most
        raise WeightsError(
            f"weights={path!r} has {n_bytes:,} bytes and would unpack to {unpacked:,}, as no file "
            "of torch's does"
        )
    if suffix != ".safetensors" and _multiplies(path):
        raise WeightsError(f"weights={path!r} holds tuples in tuples without end; nothing was read")
    try:
        if suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            with warnings.catch_warnings():  # of old formats and TorchScript
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise what they like
        said = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
        if _CODE.search(said):
            raise WeightsError(
                f"weights={path!r} holds more than tensors, and to read it would run code that "
                "the file names; nothing was run. Where you trust its source, load it once with "
                "the library that wrote it and save the module's state_dict() "
                "(safetensors.torch.save_file or torch.save)"
            ) from error
        raise WeightsError(
            f"weights={path!r} cannot be read as a {suffix} file: {type(error).__name__}: "
            f"{said.partition(chr(10))[0]}; it may be damaged or only half downloaded"
        ) from error
    return _tensors(content, path)


def _size_unpacked(path: str) -> int:
    """Bytes in an archive, 0 for what is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(item.file_size for item in archive.infolist())
    except Exception:  # no archive, or a damaged one
        return 0


def _multiplies(path: str) -> bool:
    """Whether a pickle in a file is small and what it makes is endless.

    A tuple that holds another one twice, and that the next one twice, takes a few bytes each; to
    have the hash of the last, as for a key of a dict, takes years.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            return any(_is_endless(io.BytesIO(archive.read(name))) for name in names)
    except Exception:  # no archive, or a damaged one, of which torch will tell
        pass
    try:
        with open(path, "rb") as file:
            return any(_is_endless(file) for _ in range(_PICKLES))
    except Exception:  # the numbers that follow
        return False


def _is_endless(file: Any) -> bool:
    """Whether the next pickle makes a tuple of more than `_MOST_INSIDE` things."""
    mark = -1
    stack: list[int] = []  # number of things in each; only tuples hold them for good
    memo: dict[int, int] = {}
    for code, value, _ in pickletools.genops(file):
        if code.name == "MARK":
            stack.append(mark)
        elif "GET" in code.name:
            stack.append(memo.get(int(value or 0), 1))
        elif "PUT" in code.name or code.name == "MEMOIZE":
            memo[len(memo) if value is None else int(value)] = stack[-1]
        else:
            taken = []
            if pickletools.markobject in code.stack_before:
                while stack[-1] != mark:
                    taken.append(stack.pop())
                stack.pop()
            n_more = sum(
                each not in (pickletools.markobject, pickletools.stackslice)
                for each in code.stack_before
            )
            taken += [stack.pop() for _ in range(n_more)]
            n_inside = 1 + sum(taken) if "TUPLE" in code.name else 1
            if n_inside > _MOST_INSIDE:
                return True
            stack += [n_inside] * len(code.stack_after)
    return False


def _tensors(content: Any, path: str) -> Weights:
    """The tensors by name in what a file holds, perhaps in a dict of a training script."""
    while isinstance(content, Mapping):
        inside = [k for k in _INSIDE if isinstance(content.get(k), Mapping)]
        if not inside:
            break
        content = content[inside[0]]
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"weights={path!r} holds {type(content).__name__}, not a dict of tensors by name, as "
            "a module's state_dict() gives it"
        )
    others = [repr(k) for k, v in content.items() if not (isinstance(k, str) and _dense(v))]
    if others or not content:
        raise WeightsError(
            f"weights={path!r} is not a dict of tensors by name, as a module's state_dict() gives "
            "it: " + (f"no tensor is in {_some(others)}" if others else "it is empty")
        )
    return dict(content)


def _dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


# --------------------------------------------------------------------------------------------
# tensors by name -> onto a network
# --------------------------------------------------------------------------------------------


def put_weights(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    names: Names,
    weights: str | os.PathLike[str],
    origin: str,
    adapt: Callable[[Weights], Weights] | None = None,
) -> bool:
    """Copy tensors onto `network` and tell in ``network.weights_info`` what was done.

    A head of another size is left out, so that the network keeps its own; `adapt` may change
    tensors that are named as the network's.

    Returns
    -------
    bool
        Whether a head that somebody fine-tuned was left out.

    Raises
    ------
    WeightsError
        Tensors are missing, unexpected, of another shape or no numbers; the network is as it was.
    """
    wanted = network.state_dict()  # shares the network's memory
    found, further_heads = _rename(state, wanted, names, weights)
    if adapt is not None:
        found = adapt(found)
    fate, dropped = _settle_head(found, wanted, names, further_heads)
    differences = _differences(found, wanted)
    if differences:
        raise WeightsError(
            f"weights={os.fspath(weights)!r} do not fit {title_of(network)}: {len(differences)} of "
            f"the tensors differ: {_some(differences)}; nothing was loaded"
        )
    with torch.no_grad():
        for key, value in found.items():
            wanted[key].copy_(value)
    network.weights_info = f"{origin}; {fate}"  # type: ignore[assignment]
    return dropped is not None and dropped not in _PUBLISHED


def _rename(
    state: Mapping[str, Tensor], wanted: Weights, names: Names, weights: Any
) -> tuple[Weights, bool]:
    """Tensors by the network's names, and whether the file had further heads."""
    state = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    further = tuple(f"{head}." for head in names.heads[1:])

    def of_network(key: str) -> str:
        for old, new in _OLDER:
            key = old.sub(new, key)
        if key in wanted:
            return key
        if names.heads and key.startswith(f"{names.heads[0]}."):
            return f"{names.head}{key.removeprefix(names.heads[0])}"
        return names.body + key

    def n_matches(prefix: str) -> int:
        return sum(of_network(key.removeprefix(prefix)) in wanted for key in state)

    prefixes = sorted({prefix for key in state for prefix in _prefixes_of(key)}, key=len)
    prefix = max(prefixes, key=n_matches)  # the shortest of the best
    found: Weights = {}
    further_heads = False
    for key, value in state.items():
        short = key.removeprefix(prefix)
        if further and short.startswith(further):
            further_heads = True
        elif not (names.ignored and short.startswith(names.ignored)):
            name = of_network(short)
            if name in found:
                raise WeightsError(
                    f"weights={os.fspath(weights)!r} hold {name!r} twice, under names that begin "
                    "differently; keep one"
                )
            found[name] = value
    return found, further_heads


def _prefixes_of(key: str) -> list[str]:
    """Beginnings of a name that wrappers may have put there, such as "module.model."."""
    found = [""]
    while True:
        rest = key.removeprefix(found[-1])
        begin = next((prefix for prefix in _PREFIXES if rest.startswith(prefix)), None)
        if begin is None:
            return found
        found.append(found[-1] + begin)


def _settle_head(
    found: Weights, wanted: Weights, names: Names, further_heads: bool
) -> tuple[str, int | None]:
    """Take a head that is not to be loaded out of both; say so, with its number of outputs."""
    if names.head is None:
        return "all of it", None
    own = {key for key in wanted if key.startswith(f"{names.head}.")}
    given = {key for key in found if key.startswith(f"{names.head}.")}
    weight = f"{names.head}.weight"
    if weight not in wanted:  # a layer whose weight is made of other tensors
        return "all of it", None
    n_new = wanted[weight].shape[0]
    if not given:
        fate, dropped = f"it has no head, so there is a new one of {n_new}", None
    else:
        value = found.get(weight)
        n_old = 0 if value is None or value.ndim == 0 else value.shape[0]
        fits = value is not None and value.shape[1:] == wanted[weight].shape[1:]
        if not further_heads and (not fits or n_old == n_new):
            return f"with its head of {n_new} outputs", None
        which = "heads" if further_heads else "head"
        fate = f"its {which} of {n_old} outputs {'were' if further_heads else 'was'} replaced by a"
        fate, dropped = f"{fate} new one of {n_new}", n_old
    for key in given:
        del found[key]
    for key in own:
        del wanted[key]
    return fate, dropped


def _differences(found: Weights, wanted: Weights) -> list[str]:
    """Where tensors are not what a network has."""

    def shape(value: Tensor) -> str:
        return f"({', '.join(map(str, value.shape))})"

    for key in [k for k in found if k.endswith("num_batches_tracked") and k not in wanted]:
        del found[key]  # a count that some files have and others do not
    told = []
    for key, value in wanted.items():
        if key not in found:
            if not key.endswith("num_batches_tracked") and not key.startswith("normalize."):
                told.append(f"{key} {shape(value)} is missing")
        elif found[key].shape != value.shape:
            told.append(f"{key} has the shape {shape(found[key])} instead of {shape(value)}")
        elif found[key].is_floating_point() != value.is_floating_point():
            told.append(f"{key} is {found[key].dtype} instead of {value.dtype}")
        elif value.is_floating_point() and not found[key].to(value.dtype).isfinite().all():
            told.append(f"{key} holds NaN or infinity")
    return told + [f"{k} {shape(v)} is unexpected" for k, v in found.items() if k not in wanted]


def _some(items: list[str], most: int = 4) -> str:
    more = f"; and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more


def title_of(network: nn.Module) -> str:
    """What messages call a network."""
    return str(getattr(network, "title", type(network).__name__))


def linear_head(network: nn.Module, num_classes: int) -> str | None:
    """Name of the last linear layer, if it gives as many logits as there are classes."""
    linear = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)]
    name, last = linear[-1] if linear else ("", None)
    return name if name and last is not None and last.out_features == num_classes else None
