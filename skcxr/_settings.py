"""What the classifier's "auto" parameters become, by the kind of X."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch

from skcxr._exceptions import InputError
from skcxr._inputs import Images
from skcxr._shipped import SHIPPED, shipped_weights
from skcxr.augmentation import CXRAugmentation, PerImage
from skcxr.batches import ImageDataset
from skcxr.networks import InputSpec, input_spec

DTYPES = {"float32": torch.float32, "float64": torch.float64}

_THUMBNAIL = 32  # images whose shorter side is at most this get the small network
_PATH_SIZE = 128  # side in pixels to which image_size="auto" brings files
_ARRAY_SIZE = 256  # and the longest side that it leaves to arrays
_FULL_BATCH = 256  # the small network sees up to this many images at once


@dataclass(frozen=True)
class InputSettings:
    """What is settled of a network and its input; the names are those of CXRClassifier."""

    backbone: str | Callable[..., torch.nn.Module]
    image_size: tuple[int, int]
    interpolation: str
    device: str
    dtype: str
    pixel_range: tuple[float, float]
    pixels: tuple[float, float] | None  # mean and standard deviation of rows
    of_rows: bool

    @property
    def predict_batch_size(self) -> int:
        """Images at a time in prediction.

        On a processor so few that the largest features of an EfficientNet or a ResNet stay below
        what glibc gives back to the system after every layer, which costs a third of the speed.
        """
        height, width = self.image_size
        at_once = 16 if self.backbone in ("cxrnet", "smallnet") else 10
        if self.device.partition(":")[0] != "cpu":
            at_once = 256
        return min(1024, max(1, at_once * 128**2 // (height * width)))

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of the weights."""
        return DTYPES[self.dtype]

    def dataset(
        self, images: Images, target: Any = None, weight: Any = None, **options: Any
    ) -> ImageDataset:
        """Images (and their labels) as the network takes them."""
        return ImageDataset(
            images.items, self.image_size, target, weight, self.torch_dtype, **options
        )


@dataclass(frozen=True)
class Settings(InputSettings):
    """A fit's settled parameters; the names are those of CXRClassifier."""

    max_epochs: int
    batch_size: int
    lr: float
    augmentation: str | Callable[[torch.Tensor], torch.Tensor] | None
    label_smoothing: float
    frozen: bool  # all but the head, in all epochs
    multi_label: bool

    def augmenter(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """What changes a training batch."""
        policy = self.augmentation
        if policy is None or isinstance(policy, CXRAugmentation):
            return policy
        return CXRAugmentation() if isinstance(policy, str) else PerImage(policy)


def settle(
    estimator: Any, images: Images, weight: np.ndarray[Any, Any], *, multi_label: bool
) -> Settings:
    """Settle the parameters of `estimator` for a fit on `images` with weights `weight`."""
    n_images = len(images.items)
    settled = settle_input(estimator, images, weight, estimator.dtype)
    backbone = settled.backbone
    small = backbone == "smallnet"
    shipped = shipped_weights(estimator.weights, backbone) is not None
    pretrained = estimator.weights is not None or str(backbone).startswith("xrv:")
    held = estimator.freeze == "backbone"
    if small or (held and estimator.unfreeze_at is None and pretrained):
        epochs = 100
    else:
        of_250, least = (16 if shipped else 20, 5) if pretrained else (60, 15)
        epochs = max(least, min(60, round(of_250 * (250 / n_images) ** 0.5)))
    max_epochs = _unless_auto(estimator.max_epochs, epochs)
    frozen = held and (estimator.unfreeze_at is None or estimator.unfreeze_at >= max_epochs)
    batch_size = (n_images if n_images <= _FULL_BATCH else 64) if small else 32
    if estimator.optimizer in ("sgd", torch.optim.SGD):
        lr = 0.03
    elif pretrained and not frozen:
        lr = 0.001 if shipped else 0.0005
    else:
        lr = 0.003
    augments = isinstance(backbone, str) and not small and not frozen
    smoothing = 0.05 if backbone == "cxrnet" else 0.0
    return Settings(
        **vars(settled),
        max_epochs=max_epochs,
        batch_size=_unless_auto(estimator.batch_size, batch_size),
        lr=_unless_auto(estimator.lr, lr),
        augmentation=_unless_auto(estimator.augmentation, "cxr" if augments else None),
        label_smoothing=_unless_auto(estimator.label_smoothing, smoothing),
        frozen=frozen,
        multi_label=multi_label,
    )


def settle_input(
    estimator: Any,
    images: Images,
    weight: np.ndarray[Any, Any] | None = None,
    dtype: str = "auto",
    auto: str = "cxrnet",
) -> InputSettings:
    """Settle the network of `estimator`, which may be `auto`, and how `images` get into it."""
    backbone = estimator.backbone
    if free := backbone == "auto":
        named = SHIPPED.get(estimator.weights)
        backbone = auto if named is None else named.backbone
    spec = input_spec(backbone, estimator.weights)
    image_size = _image_size(estimator.image_size, images, spec)
    if free and backbone == "cxrnet" and spec.size is None and min(image_size) <= _THUMBNAIL:
        backbone = "smallnet"
    dtype = _unless_auto(dtype, "float64" if images.is_float64 else "float32")
    of_rows = images.kind == "rows"
    weight = np.ones(len(images.items)) if weight is None else weight
    return InputSettings(
        backbone=backbone,
        image_size=image_size,
        interpolation=_unless_auto(estimator.interpolation, spec.interpolation),
        device=_device(estimator.device, dtype),
        dtype=dtype,
        pixel_range=images.pixel_range,
        pixels=_mean_and_std(images.items, weight) if of_rows else None,
        of_rows=of_rows,
    )


def _unless_auto(value: Any, auto: Any) -> Any:
    return auto if isinstance(value, str) and value == "auto" else value


def _image_size(image_size: Any, images: Images, spec: InputSpec) -> tuple[int, int]:
    if images.kind == "rows":
        if not isinstance(image_size, str):
            raise InputError(
                f"image_size={image_size!r} is for files and images; the rows of a 2-D X are not "
                "resized, their shape is row_shape="
            )
        return images.items.shape[1:]  # type: ignore[union-attr]
    if isinstance(image_size, Sequence) and not isinstance(image_size, str):
        if len(image_size) != 2 or not all(
            isinstance(side, Integral) and int(side) >= 1 for side in image_size
        ):
            raise InputError(f"image_size={image_size!r} is not (height, width) in pixels")
        return int(image_size[0]), int(image_size[1])
    if image_size != "auto":
        return int(image_size), int(image_size)
    if spec.size is not None:
        return spec.size
    if images.kind == "paths":
        return _PATH_SIZE, _PATH_SIZE
    height, width = images.items.shape[1:3]  # type: ignore[union-attr]
    scale = min(1.0, _ARRAY_SIZE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _mean_and_std(rows: Any, weight: np.ndarray[Any, Any]) -> tuple[float, float]:
    weight = weight / weight.sum()
    mean = float(weight @ rows.mean(axis=(1, 2), dtype=np.float64))
    std = float(weight @ np.square(rows - mean).mean(axis=(1, 2), dtype=np.float64)) ** 0.5
    return mean, std if std > 0 else 1.0


def _device(device: str, dtype: str) -> str:
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        # Apple's GPUs have no float64
        return "mps" if torch.backends.mps.is_available() and dtype == "float32" else "cpu"
    try:
        torch.empty(1, device=device, dtype=DTYPES[dtype]).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device={device!r} cannot be used: {error}") from error
    return device
