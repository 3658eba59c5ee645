"""A fitted classifier as one ONNX file, from pixels of any size to probabilities."""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skcxr import __version__
from skcxr._cache import Decoder
from skcxr._exceptions import InputError
from skcxr._files import check_target, write_bytes
from skcxr._inputs import Images
from skcxr._notice import RESEARCH_ONLY
from skcxr._onnx_input import write_resize, write_rows
from skcxr._optional import import_optional
from skcxr.augmentation import CXRViews, make_views
from skcxr.classifier import CXRClassifier
from skcxr.networks import CXRNet, SmallNet
from skcxr.training import one_at_a_time, own_randomness

__all__ = ["export_onnx"]

Array = np.ndarray[Any, Any]

_FORMAT_VERSION = 1
_OPSET, _IR_VERSION = 18, 8  # of 2022: what runs them is everywhere
_MOST_BYTES = 2**31 - 2**20  # protobuf ends at 2 GiB
_MOST_OFF = 1e-4  # from the probabilities of predict_proba


def export_onnx(clf: CXRClassifier, path: str | os.PathLike[str]) -> str:
    """Write a fitted classifier as one ONNX file, preprocessing and probabilities inside.

    The file runs without skcxr and PyTorch, in ONNX Runtime and whatever else reads ONNX. Before
    it is put in place, ONNX Runtime predicts some drawn images with it, and the probabilities are
    compared with those of `clf`.

    Parameters
    ----------
    clf : CXRClassifier
        A fitted classifier. Of a pipeline or an ensemble, export the classifier inside.
    path : str or os.PathLike
        The file, in a folder that exists. One that is there is replaced when the new one is
        complete, and stays where that fails.

    Returns
    -------
    str
        `path`.

    Raises
    ------
    InputError
        `clf` is no CXRClassifier, its network cannot be written as ONNX or takes more than 2 GB,
        ONNX Runtime's probabilities are not those of `clf`, or `path` cannot be written. The
        message says which.
    NotFittedError
        `clf` is not fitted.
    MissingDependencyError
        The extra ``skcxr[onnx]`` is not installed.

    See Also
    --------
    save_model : A folder from which skcxr makes the classifier again.

    Notes
    -----
    The graph has one input, "images" of float32: ``(batch, height, width)`` with pixels as
    :func:`skcxr.read_image` gives them, of any size; or ``(batch, n_features)`` where `clf` was
    fitted on rows. It has one output, "probabilities" of float32, as `predict_proba` gives them.
    Batch, height and width are free. Images are resized as Pillow does it, those of multiples of
    1/255 as 8-bit images, to the bit. Large JPEGs alone differ a little from what `clf` makes of
    their files, because skcxr decodes them at a part of their scale;
    ``ImageLoader(image_size=clf.image_size_, interpolation=clf.interpolation_)`` gives pixels that
    the graph leaves as they are.

    Weights of float64 become float32, and bfloat16 (``amp=True``) is left out. Views of `tta` are
    in the graph.

    The file's metadata are text: "classes" (a JSON list of labels or findings in the order of the
    columns), "kind" ("classes", of which one is present, or "findings", each for itself), "input",
    "image_size", "interpolation", "pixel_range", "backbone", "skcxr_version", "format_version" and
    "notice". There are no paths and no training data.

    Examples
    --------
    >>> import os, tempfile
    >>> from skcxr import CXRClassifier, export_onnx, make_cxr_phantoms
    >>> phantoms = make_cxr_phantoms(8, n_classes=2, image_size=32, random_state=0)
    >>> clf = CXRClassifier(max_epochs=2, random_state=0).fit(phantoms.data, phantoms.target)
    >>> path = export_onnx(clf, os.path.join(tempfile.mkdtemp(), "model.onnx"))
    >>> import onnxruntime
    >>> session = onnxruntime.InferenceSession(path)
    >>> images = phantoms.data.astype("float32") / 255
    >>> (probabilities,) = session.run(None, {"images": images})
    >>> bool(abs(probabilities - clf.predict_proba(phantoms.data)).max() < 1e-5)
    True
    """
    _check_classifier(clf)
    name = _check_path(path)
    import_optional("onnx", "onnx")
    import_optional("onnxscript", "onnx")
    import_optional("onnxruntime", "onnx")
    with one_at_a_time(), own_randomness(0, "cpu"), torch.no_grad():
        network = _copy_network(clf)
        drawn = _draw(clf, network)
        content = _write_graph(clf, network)
        _compare(content, drawn)
    try:
        write_bytes(name, content)
    except OSError as error:
        raise InputError(
            f"path={name!r} cannot be written: {error.strerror or type(error).__name__}"
        ) from error
    return name


def _check_classifier(clf: Any) -> None:
    if not isinstance(clf, CXRClassifier):
        what = clf.__name__ if isinstance(clf, type) else type(clf).__name__
        inside = ""
        if hasattr(clf, "steps") or hasattr(clf, "estimators_") or hasattr(clf, "best_estimator_"):
            inside = (
                "; export the fitted CXRClassifier inside, such as pipeline[-1] or "
                "search.best_estimator_, and do by hand what stands around it"
            )
        elif hasattr(clf, "transform"):
            inside = '; fit CXRClassifier(freeze="backbone") in its place'
        raise InputError(f"export_onnx takes a fitted CXRClassifier, and got {what}{inside}")
    check_is_fitted(clf)


def _check_path(path: Any) -> str:
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError(f"path={path!r} is not the name of a file")
    try:
        check_target(name)
    except (OSError, UnicodeEncodeError) as error:
        raise InputError(f"path={name!r} is not the name of a file: {error}") from error
    return name


# --------------------------------------------------------------------------------------------
# the network, from pixels of its size to probabilities
# --------------------------------------------------------------------------------------------


def _copy_network(clf: CXRClassifier) -> nn.Module:
    """The fitted network on the CPU, to be changed; the classifier's stays as it is."""
    try:
        network = copy.deepcopy(clf.module_)
    except Exception as error:
        raise InputError(f"backbone={clf.backbone!r} cannot be copied: {_short(error)}") from error
    return network.cpu().eval().requires_grad_(False)


class _InOnePiece(nn.Module):
    """A CXRNet after its standardisation."""

    def __init__(self, network: CXRNet) -> None:
        super().__init__()
        self.layers = network.layers

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.layers.head(self.layers.embed(x, 0))
        return logits


class _Probabilities(nn.Module):
    """Pixels ``(B, 1, H, W)`` -> probabilities ``(B, n_classes)``; `network` becomes float32."""

    places: Tensor
    gammas: Tensor

    def __init__(self, clf: CXRClassifier, network: nn.Module) -> None:
        super().__init__()
        self.multi_label = clf._settings.multi_label
        self.shape, self.dtype = clf.image_size_, clf._settings.torch_dtype
        self.n_views = 1 + clf.tta
        self.take_views()
        self.standardize: nn.Module = nn.Identity()
        if isinstance(network, CXRNet | SmallNet):  # without the pieces in which they are trained
            self.standardize = network.standardize
            network = _InOnePiece(network) if isinstance(network, CXRNet) else network.layers
        self.network = network.float()

    def take_views(self) -> None:
        """Note of each view where its pixels come from, and its gamma."""
        views = CXRViews(self.n_views)
        rows_and_columns = torch.meshgrid(*map(torch.arange, self.shape), indexing="ij")
        images = torch.stack(rows_and_columns).to(self.dtype)[:, None]  # (2, 1, H, W)
        moved = replace(views.policy, gamma=0.0)
        places = []
        for draw in views.draws.T[1:]:
            rows, columns = moved.apply(images, draw[:, None].expand(5, 2)).long()
            places.append((rows * self.shape[1] + columns).flatten())
        gammas = (views.draws[4, 1:].to(self.dtype) * views.policy.gamma).exp()
        self.register_buffer("places", torch.stack(places) if places else None)
        self.register_buffer("gammas", gammas)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over the views."""
        x = x.to(self.dtype)
        views = [x]
        for k in range(self.n_views - 1):
            view = x.flatten(2).index_select(2, self.places[k]).reshape(-1, 1, *self.shape)
            unit = view.clamp(0, 1)
            views.append(view + (unit ** self.gammas[k] - unit))
        x = self.standardize(torch.cat(views) if len(views) > 1 else x).float()
        logits: Tensor = self.network(x)
        probabilities: Tensor = logits.sigmoid() if self.multi_label else logits.softmax(1)
        if len(views) == 1:
            return probabilities
        return probabilities.reshape(len(views), -1, probabilities.shape[1]).mean(0)


# --------------------------------------------------------------------------------------------
# the graph
# --------------------------------------------------------------------------------------------


def _write_graph(clf: CXRClassifier, network: nn.Module) -> bytes:
    onnx = import_optional("onnx", "onnx")
    whole = _Probabilities(clf, network).eval()
    size = sum(x.numel() * x.element_size() for x in whole.state_dict().values())
    if size > _MOST_BYTES:
        raise InputError(
            f"backbone={clf.backbone_!r} has {size / 2**30:.1f} GiB of weights, and an ONNX file "
            "holds less than 2"
        )
    model = _trace(clf, whole)
    graph = model.graph
    _forget_origins(graph)
    op = (
        write_rows("images", "pixels", clf.image_size_)
        if clf._settings.of_rows
        else write_resize("images", "pixels", clf.image_size_, clf.interpolation_)
    )
    shape: tuple[str | int, ...] = ("batch", "height", "width")
    if clf._settings.of_rows:
        shape = ("batch", clf.image_size_[0] * clf.image_size_[1])
    make = onnx.helper.make_tensor_value_info
    n_classes = len(_class_names(clf))
    whole_graph = onnx.helper.make_graph(
        [*op.nodes, *graph.node],
        "skcxr",
        [make("images", onnx.TensorProto.FLOAT, shape)],
        [make("probabilities", onnx.TensorProto.FLOAT, ("batch", n_classes))],
        [*op.constants.values(), *graph.initializer],
    )
    whole_model = onnx.helper.make_model(
        whole_graph, functions=list(model.functions), opset_imports=list(model.opset_import),
        ir_version=_IR_VERSION, producer_name="skcxr", producer_version=__version__,
    )  # fmt: skip
    onnx.helper.set_model_props(whole_model, _describe(clf))
    try:
        onnx.checker.check_model(whole_model, full_check=True)
        return bytes(whole_model.SerializeToString(deterministic=True))
    except Exception as error:
        raise InputError(
            f"backbone={clf.backbone_!r} cannot be written as ONNX: {_short(error)}"
        ) from error


def _trace(clf: CXRClassifier, whole: nn.Module) -> Any:
    """The network's graph, "pixels" to "probabilities", as PyTorch writes it."""
    pixels = torch.rand(3, 1, *clf.image_size_)
    batch = {0: torch.export.Dim("batch")}
    try:
        with _quiet():
            program = torch.onnx.export(
                whole, (pixels,), input_names=["pixels"], output_names=["probabilities"],
                dynamic_shapes=(batch,), opset_version=_OPSET, dynamo=True, external_data=False,
                verbose=False,
            )  # fmt: skip
            assert program is not None
            return program.model_proto
    except Exception as error:  # of any kind, by torch's many layers
        raise InputError(
            f"backbone={clf.backbone_!r} cannot be written as ONNX by PyTorch: {_short(error)}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """What PyTorch and onnxscript say of their own insides is nothing for the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _forget_origins(graph: Any) -> None:
    """Drop the lines of code, with their paths, from which nodes come."""
    for node in graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_origins(attribute.g)
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")
    del graph.value_info[:]


def _class_names(clf: CXRClassifier) -> list[Any]:
    multi_label = clf._settings.multi_label
    return list(np.asarray(clf.findings_ if multi_label else clf.classes_).tolist())


def _describe(clf: CXRClassifier) -> dict[str, str]:
    settings = clf._settings
    low, high = clf.pixel_range_
    if settings.of_rows:
        what = (
            f"float32 (batch, {clf.image_size_[0] * clf.image_size_[1]}): rows of pixels "
            f"of images of {clf.image_size_[0]} x {clf.image_size_[1]}"
        )
    else:
        what = "float32 (batch, height, width): gray images of any size"
    return {
        "classes": json.dumps(_class_names(clf), ensure_ascii=False, default=str),
        "kind": "findings" if settings.multi_label else "classes",
        "input": f"{what}, pixels of 8 bits divided by 255 and of 16 bits by 65535, floats as in "
        "training",
        "image_size": json.dumps(list(clf.image_size_)),
        "interpolation": "none" if settings.of_rows else clf.interpolation_,
        "pixel_range": json.dumps([low, high]),
        "backbone": clf.backbone_ if isinstance(clf.backbone_, str) else "",
        "tta": str(clf.tta),
        "skcxr_version": __version__,
        "format_version": str(_FORMAT_VERSION),
        "notice": f"{RESEARCH_ONLY} Not a medical device.",
    }


# --------------------------------------------------------------------------------------------
# ONNX Runtime against the network
# --------------------------------------------------------------------------------------------


def _draw(clf: CXRClassifier, network: nn.Module) -> list[tuple[Array, Array]]:
    """Drawn images, of their size and of another, and the network's probabilities."""
    settings = clf._settings
    height, width = clf.image_size_
    shapes = [(3, height, width)]
    if not settings.of_rows:
        shapes.append((1, height + height // 2 + 1, 2 * width + 1))
    random = np.random.default_rng(0)
    low, high = clf.pixel_range_
    drawn = []
    for shape in shapes:
        images = (low + (high - low) * random.random(shape)).astype(np.float32)
        dataset = settings.dataset(
            Images(images, "images"), decode=Decoder(interpolation=clf.interpolation_)
        )
        pixels = dataset.__getitems__(list(range(len(images))))[0]
        views = []
        for view in make_views(pixels, 1 + clf.tta):
            logits = network(view).double()
            views.append(logits.sigmoid() if settings.multi_label else logits.softmax(1))
        if not all(view.isfinite().all() for view in views):
            raise InputError("the network answers drawn images with NaN or infinity; fit it anew")
        given = images.reshape(len(images), -1) if settings.of_rows else images
        drawn.append((given, torch.stack(views).mean(0).numpy()))
    return drawn


def _compare(content: bytes, drawn: list[tuple[Array, Array]]) -> None:
    onnxruntime = import_optional("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        found = [session.run(None, {"images": images})[0] for images, _ in drawn]
    except Exception as error:
        raise InputError(f"ONNX Runtime cannot run the network: {_short(error)}") from error
    for (_, expected), probabilities in zip(drawn, found, strict=True):
        if probabilities.shape != expected.shape:
            raise InputError(
                f"ONNX Runtime's probabilities are of shape {probabilities.shape}, those of the "
                f"network of shape {expected.shape}; nothing is written"
            )
        off = float(np.abs(probabilities - expected).max())
        if not off <= _MOST_OFF:
            raise InputError(
                f"ONNX Runtime's probabilities of drawn images are off those of the network by "
                f"{off:.2g}, more than {_MOST_OFF:g}; nothing is written"
            )


def _short(error: BaseException) -> str:
    """What was first to go wrong, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = str(error).strip().partition("\n")[0][:300]
    return f"{type(error).__name__}: {said}"
