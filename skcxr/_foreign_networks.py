"""Networks of torchvision, timm and torchxrayvision behind one wrapper, and their weights.

A wrapper takes gray pixels in [0, 1], normalises them as the weights want it, and keeps the
library's network (`body`) apart from its last linear layer (`head`).

References
----------
torchvision: https://docs.pytorch.org/vision/stable/models.html
timm: Wightman, "PyTorch image models", https://github.com/huggingface/pytorch-image-models
torchxrayvision: Cohen et al., "TorchXRayVision: A library of chest X-ray datasets and models",
MIDL 2022.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skcxr._exceptions import InputError, WeightsError
from skcxr._optional import import_optional
from skcxr._own_networks import parameters_of_stages
from skcxr._weights import Names, Weights

Size = tuple[int, int]


@dataclass(frozen=True)
class InputSpec:
    """What images a network's weights were trained on.

    Parameters
    ----------
    size : (int, int) or None
        Height and width in pixels; None for any.
    channels : int
        Channels of the first convolution, 1 or 3.
    mean, std : tuple of float or None
        By which pixels in [0, 1] are normalised, one for each channel; None where each image is
        standardised by itself.
    interpolation : {"hamming", "bilinear", "bicubic"}
        How images are brought to `size`.
    fixed_size : bool
        Whether images of another size cannot be run, or need other weights.

    Examples
    --------
    >>> from skcxr.networks import InputSpec, input_spec
    >>> input_spec("cxrnet") == InputSpec(None, 1, None, None, "hamming", False)
    True
    """

    size: Size | None
    channels: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    interpolation: str
    fixed_size: bool


# --------------------------------------------------------------------------------------------
# the wrapper
# --------------------------------------------------------------------------------------------


class Normalize(nn.Module):
    """Gray pixels in [0, 1] -> one channel for each mean, normalised."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            value = torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1, 1)
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, H, W)
        return (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)  # (B, C, H, W)


class ForeignNet(nn.Module):
    """A library's network, apart from its last layer, for gray pixels.

    Parameters
    ----------
    title : str
        What messages call it.
    body : torch.nn.Module
        ``(B, C, H, W)`` -> embeddings ``(B, d)``.
    head : torch.nn.Linear
        Embeddings -> logits ``(B, num_classes)``.
    spec : InputSpec
        Its mean and std normalise the pixels.
    names : Names
        How names in the library's files become those here.
    dropout : float, default=0.0
        Share of the embeddings that a training step leaves out.
    """

    def __init__(
        self,
        title: str,
        body: nn.Module,
        head: nn.Linear,
        spec: InputSpec,
        names: Names,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        assert spec.mean is not None
        assert spec.std is not None
        self.title, self.names = title, names
        self.normalize = Normalize(spec.mean, spec.std)
        self.body = body
        self.dropout = nn.Dropout(dropout)
        self.head = head
        self.embedding_size = head.in_features
        self.to(memory_format=torch.channels_last)  # up to twice as fast on a CPU

    def embed(self, x: Tensor) -> Tensor:  # (B, 1, H, W)
        """Embeddings ``(B, d)`` of pixels: what the head gets."""
        try:
            return self.body(self.normalize(x))
        except (RuntimeError, ValueError) as error:
            said, (height, width) = str(error).partition("\n")[0], x.shape[2:]
            if re.search(r"[Kk]ernel size|too small|output size|Expected more than 1 value", said):
                raise InputError(
                    f"backbone={self.title!r} cannot run on {len(x)} images of {height} x {width} "
                    f"pixels ({said}); set a larger image_size= or batch_size="
                ) from error
            raise

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of pixels ``(B, 1, H, W)`` or embeddings ``(B, d)``."""
        if x.ndim != 2:
            x = self.embed(x)
        return self.head(self.dropout(x))

    def stages(self) -> list[list[nn.Module]]:
        """The modules of the body, from the pixels on, stage by stage."""
        return stages_of(self.body)

    def stage_parameters(self) -> list[list[nn.Parameter]]:
        """The parameters of each stage; together all but the head's."""
        return parameters_of_stages(self, self.stages(), self.head)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load what `state_dict` gave, also from a file that keeps tensors only."""
        if not hasattr(state_dict, "_metadata"):  # versions, without which mnasnet refuses
            state_dict = OrderedDict(state_dict)
            state_dict._metadata = self.state_dict()._metadata  # type: ignore[attr-defined]
        return super().load_state_dict(state_dict, *args, **kwargs)


_CONTAINERS = {"features", "layers", "blocks", "stages", "encoder", "trunk_output"}
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d)


def stages_of(body: nn.Module) -> list[list[nn.Module]]:
    """Cut a network into stages: blocks in order, and runs of single layers as one.

    A run ends with a pooling layer, and what has no matrix or filter of its own (norms, pooling)
    belongs to what comes before it.
    """
    runs: list[list[nn.Module]] = [[]]
    for module in _opened(body):
        if isinstance(module, _NORMS) or not any(module.children()):  # a single layer
            runs[-1].append(module)
            if isinstance(module, _POOLS):
                runs.append([])
        else:
            runs += [[module], []]
    stages: list[list[nn.Module]] = []
    for run in filter(None, runs):
        if stages and not (_weighs(run) and _weighs(stages[-1])):
            stages[-1] += run
        else:
            stages.append(run)
    return stages


def _opened(module: nn.Module) -> Iterator[nn.Module]:
    for name, child in module.named_children():
        if name in _CONTAINERS and any(child.children()):
            yield from _opened(child)
        else:
            yield child


def _weighs(run: list[nn.Module]) -> bool:
    return any(p.ndim > 1 for module in run for p in module.parameters())


def _take_head(model: nn.Module) -> tuple[nn.Linear, str, float]:
    """Take the last linear layer off, and the dropout before it: the layer, its name, the share."""
    linear = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    name, head = linear[-1]
    parent = model.get_submodule(name.rpartition(".")[0])
    siblings = list(parent.named_children())
    at = [child for _, child in siblings].index(head)
    setattr(parent, siblings[at][0], nn.Identity())
    before, dropout = siblings[at - 1] if at else ("", None)
    if not isinstance(dropout, nn.Dropout):
        return head, name, 0.0
    setattr(parent, before, nn.Identity())
    return head, name, dropout.p


# --------------------------------------------------------------------------------------------
# torchvision
# --------------------------------------------------------------------------------------------

# of its networks, squeezenet has no linear head: it averages what a convolution and a ReLU say
NO_HEAD = ("squeezenet",)
# they normalise their input once more (transform_input=True), which comes to 0.5 and 0.5
_INCEPTIONS = ("googlenet", "inception_v3")


def _models() -> Any:
    import torchvision  # takes a second, for which only those who need it wait

    return torchvision.models


def _torchvision_names() -> list[str]:
    names = _models().list_models(module=_models())
    return [name for name in names if not name.startswith(NO_HEAD)]


def _torchvision_published(name: str) -> list[str]:
    return [str(w.name) for w in _models().get_model_weights(name)]


def _torchvision_spec(name: str, weights: str | None) -> InputSpec:
    known = _models().get_model_weights(name)
    said = known[weights or "DEFAULT"].transforms()
    mean, std = tuple(said.mean), tuple(said.std)
    if name in _INCEPTIONS:
        mean = std = (0.5, 0.5, 0.5)
    size = (said.crop_size[0], said.crop_size[-1])
    fixed = name.startswith(("vit_", "maxvit"))
    return InputSpec(size, 3, mean, std, _interpolation(said.interpolation.value), fixed)


def _torchvision_build(
    name: str, num_classes: int, image_size: Size, spec: InputSpec, **kwargs: Any
) -> ForeignNet:
    ours: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if name.startswith("vit_"):
        if image_size[0] != image_size[1]:
            raise ValueError("it takes square images")
        ours["image_size"] = image_size[0]
    elif name.startswith("maxvit"):
        ours["input_size"] = image_size
    elif name in _INCEPTIONS:
        ours |= {"aux_logits": False, "init_weights": False, "transform_input": False}
    body = _models().get_model(name, **ours, **kwargs)
    head, head_name, dropout = _take_head(body)
    names = Names("head", "body.", (head_name,), ("aux1.", "aux2.", "AuxLogits."))
    return ForeignNet(name, body, head, spec, names, dropout)


def _torchvision_fetch(name: str, weights: str, image_size: Size, **kwargs: Any) -> Fetched:
    known = _models().get_model_weights(name)[weights]
    with _downloading(name, weights, known.url, f"folder {torch.hub.get_dir()}/checkpoints"):
        state = known.get_state_dict(progress=False, check_hash=True)
    return state, f"{known.name} of torchvision"


# --------------------------------------------------------------------------------------------
# timm
# --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _quiet(library: str) -> Iterator[None]:
    """The first import of a library, in which its warnings are its own."""
    if library in sys.modules:
        yield
        return
    with warnings.catch_warnings():  # torchxrayvision's import silences all of the process
        warnings.simplefilter("ignore")  # timm's gives some that its users cannot help
        yield


def _timm() -> Any:
    with _quiet("timm"):
        return import_optional("timm", "timm")


def _timm_names() -> list[str]:
    return list(_timm().list_models())


def _timm_published(name: str) -> list[str]:
    tagged = _timm().list_pretrained(f"{name.partition('.')[0]}.*")
    tags = [tag.partition(".")[2] for tag in tagged]
    return ["DEFAULT", *filter(None, tags)] if tagged else []


def _timm_tagged(name: str, weights: str | None) -> str:
    """The network's name with the tag of weights."""
    tag = weights if weights not in (None, "DEFAULT") else ""
    return f"{name.partition('.')[0]}.{tag}" if tag else name


def _timm_spec(name: str, weights: str | None) -> InputSpec:
    cfg = _timm().get_pretrained_cfg(_timm_tagged(name, weights))
    if cfg is None:
        return InputSpec((224, 224), 3, (0.5,) * 3, (0.5,) * 3, "bicubic", False)
    mean, std = (tuple(cfg.mean) * 3)[:3], (tuple(cfg.std) * 3)[:3]
    size = (int(cfg.input_size[1]), int(cfg.input_size[2]))
    return InputSpec(size, 3, mean, std, _interpolation(cfg.interpolation), cfg.fixed_input_size)


def _timm_build(
    name: str, num_classes: int, image_size: Size, spec: InputSpec, **kwargs: Any
) -> ForeignNet:
    body = _timm_model(name, image_size, spec, num_classes=0, **kwargs)
    width = getattr(body, "head_hidden_size", None) or body.num_features
    cfg = _timm().get_pretrained_cfg(name)
    heads = getattr(cfg, "classifier", None) or ()
    names = Names("head", "body.", (heads,) if isinstance(heads, str) else tuple(heads))
    return ForeignNet(f"timm:{name}", body, nn.Linear(width, num_classes), spec, names)


def _timm_model(name: str, image_size: Size, spec: InputSpec, **kwargs: Any) -> Any:
    kwargs = {"in_chans": 3, "pretrained": False, **kwargs}
    if not spec.fixed_size:
        return _timm().create_model(name, **kwargs)
    try:
        return _timm().create_model(name, img_size=image_size, **kwargs)
    except TypeError:  # a network of one size only
        if image_size != spec.size:
            raise
        return _timm().create_model(name, **kwargs)


def _timm_fetch(name: str, weights: str, image_size: Size, **kwargs: Any) -> Fetched:
    spec = _timm_spec(name, weights)
    tagged = _timm_tagged(name, weights)
    cfg = _timm().get_pretrained_cfg(tagged)
    where = f"https://huggingface.co/{cfg.hf_hub_id}" if cfg.hf_hub_id else cfg.url
    with _downloading(f"timm:{name}", weights, where, "cache of huggingface_hub"):
        model = _timm_model(tagged, image_size, spec, pretrained=True, **kwargs)
    return model.state_dict(), f"{cfg.tag or 'the default'} of timm"


# --------------------------------------------------------------------------------------------
# torchxrayvision
# --------------------------------------------------------------------------------------------


def _xrv() -> Any:
    with _quiet("torchxrayvision"):
        return import_optional("torchxrayvision", "xrv").models


def _xrv_names() -> list[str]:
    return sorted(name for name in _xrv().model_urls if "-res" in name)


def _xrv_published(name: str) -> list[str]:
    return ["DEFAULT"]


def _xrv_spec(name: str, weights: str | None) -> InputSpec:
    side = 512 if "-res512-" in name else 224
    # the library's pixels lie in [-1024, 1024]
    return InputSpec((side, side), 1, (0.5,), (1 / 2048,), "bilinear", False)


def _xrv_build(
    name: str, num_classes: int, image_size: Size, spec: InputSpec, **kwargs: Any
) -> ForeignNet:
    # the library's networks are torchvision's, with a first layer for one channel; its own
    # classes bring every image to one size and turn logits into other scores
    architecture = name.partition("-")[0]
    ours = {"weights": None, "num_classes": num_classes}
    body = _models().get_model(architecture, **ours, **kwargs)
    stem = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    if architecture.startswith("densenet"):
        body.features.conv0 = stem
    else:
        body.conv1 = stem
    head, head_name, _ = _take_head(body)
    names = Names("head", "body.", (head_name,), ("op_threshs",))
    return ForeignNet(f"xrv:{name}", body, head, spec, names)


def _xrv_fetch(name: str, weights: str, image_size: Size, **kwargs: Any) -> Fetched:
    models = _xrv()
    where = models.model_urls[name]["weights_url"]
    with (
        _downloading(f"xrv:{name}", weights, where, "folder ~/.torchxrayvision/models_data"),
        contextlib.redirect_stdout(io.StringIO()),  # it prints
    ):
        state = models.get_model(name).state_dict()
    return state, f"{name} of torchxrayvision"


# --------------------------------------------------------------------------------------------
# what the libraries have in common
# --------------------------------------------------------------------------------------------

Fetched = tuple[Weights, str]  # tensors, and what they are


class Library(NamedTuple):
    """What is asked of a library; `weights` are those of `published`."""

    names: Callable[[], list[str]]
    published: Callable[[str], list[str]]  # name -> names of weights
    spec: Callable[[str, str | None], InputSpec]
    build: Callable[..., ForeignNet]
    fetch: Callable[..., Fetched]


LIBRARIES = {
    "torchvision": Library(
        _torchvision_names, _torchvision_published, _torchvision_spec, _torchvision_build,
        _torchvision_fetch,
    ),
    "timm": Library(_timm_names, _timm_published, _timm_spec, _timm_build, _timm_fetch),
    "xrv": Library(_xrv_names, _xrv_published, _xrv_spec, _xrv_build, _xrv_fetch),
}  # fmt: skip


# what else makes a library read files or ask the network
_LOADING = {
    "cache_dir", "checkpoint_path", "features_only", "pretrained", "pretrained_cfg",
    "pretrained_cfg_overlay", "weights",
}  # fmt: skip


def build_foreign(
    library: str, name: str, num_classes: int, image_size: Size, spec: InputSpec,
    dropout: float | None = None, **kwargs: Any,
) -> ForeignNet:  # fmt: skip
    """Draw a library's network, or say why it cannot be built."""
    if dropout is not None and not 0 <= dropout < 1:
        raise InputError(f"dropout={dropout!r} is not in [0, 1)")
    if loading := sorted(_LOADING & kwargs.keys()):
        raise InputError(f"{loading[0]}= may not be passed to {name!r}; use weights= instead")
    try:
        network = LIBRARIES[library].build(name, num_classes, image_size, spec, **kwargs)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        given = f" and {kwargs}" if kwargs else ""
        best = f"; it is made for {spec.size[0]} x {spec.size[1]}" if spec.size else ""
        raise InputError(
            f"backbone={name!r} of {library} cannot be built for images of {image_size[0]} x "
            f"{image_size[1]} pixels{given}: {error}{best}"
        ) from error
    if dropout is not None:
        network.dropout.p = dropout
    return network


def resize_positions(network: ForeignNet, found: Weights) -> Weights:
    """Position embeddings of a vision transformer for another image size, interpolated."""
    body: Any = network.body
    for key, grid in (
        ("body.encoder.pos_embedding", lambda: (body.image_size // body.patch_size,) * 2),
        ("body.pos_embed", lambda: body.patch_embed.grid_size),
    ):
        wanted, value = network.state_dict().get(key), found.get(key)
        if wanted is None or value is None or wanted.shape == value.shape:
            continue
        height, width = grid()
        n_other = wanted.shape[1] - height * width  # tokens that stand for no patch
        side = round(max(value.shape[1] - n_other, 0) ** 0.5) if value.ndim == 3 else 0
        if n_other < 0 or not side or side**2 + n_other != value.shape[1]:
            continue  # told as a difference
        patches = value[:, n_other:].reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, d, s, s)
        patches = nn.functional.interpolate(
            patches.float(), (height, width), mode="bicubic", antialias=True, align_corners=False
        )
        patches = patches.permute(0, 2, 3, 1).flatten(1, 2)  # (1, H * W, d)
        found = {**found, key: torch.cat([value[:, :n_other].float(), patches], 1)}
    return found


def _interpolation(name: str) -> str:
    return name if name in ("bilinear", "bicubic") else "bicubic"


@contextlib.contextmanager
def _downloading(backbone: str, weights: str, where: str | None, kept: str) -> Iterator[None]:
    """A library's download: whatever fails is our error."""
    try:
        yield
    except Exception as error:
        said = str(error).strip().partition("\n")[0][:300]
        raise WeightsError(
            f"weights={weights!r} of {backbone!r} could not be loaded from {where} (or the "
            f"{kept}, where they are kept): {type(error).__name__}: {said}. Without a network, "
            f"download the file elsewhere and give weights={os.path.join('folder', 'file')!r}, "
            "the path of a local .safetensors, .pt or .pth file"
        ) from error
