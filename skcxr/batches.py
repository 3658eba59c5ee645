"""Any accepted X -> torch batches ``(B, 1, H, W)``.

    X -> kind ("paths", "images" or "rows") -> ImageDataset -> BatchLoader -> float batches

Paths are decoded batch by batch; what is decoded is held in its own depth until `ram_limit`
bytes are full and decoded again beyond, so that the numbers never depend on the limit.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from skcxr._cache import Decoder
from skcxr._exceptions import ImageReadError, InputError, SkcxrError, Unreadable
from skcxr._patients import as_paths
from skcxr._pillow import MAX_PIXELS, MAX_SIDE
from skcxr._threads import map_in_threads
from skcxr.images import resize, to_unit

__all__ = ["BatchLoader", "EmbeddingDataset", "ImageDataset", "as_images", "as_paths"]

Array = np.ndarray[Any, Any]

_PIXEL_TYPES = "uint8 (divided by 255), uint16 (divided by 65535), bool, or floats (as they are)"
_LARGEST = 1e18  # float32 holds its square

# --------------------------------------------------------------------------------------------
# what is X?
# --------------------------------------------------------------------------------------------


def as_images(X: Any, channel_axis: int | str = "auto", *, allow_nan: bool = False) -> Array | None:
    """X as images ``(n, H, W)`` or ``(n, H, W, 3)``, or None where X is not 3-D or 4-D.

    Nothing is copied: a channel axis is moved to the end or, where it is 1, dropped.

    Parameters
    ----------
    X : object
        An array, or a list of arrays of one shape.
    channel_axis : {"auto", 1, 3, -1}, default="auto"
        Axis of the channels in a 4-D X; "auto" takes the one of 1 and 3 with 1 or 3 entries.
    allow_nan : bool, default=False
        Whether an image may be NaN altogether, as one is that could not be read.

    Returns
    -------
    ndarray of shape (n, H, W) or (n, H, W, 3), or None
        The images, in their own type.

    Raises
    ------
    InputError
        Images of different sizes, an unknown pixel type, pixels that are not finite, no pixels or
        too many, or a channel axis that is missing or cannot be told.

    Examples
    --------
    >>> import numpy as np
    >>> from skcxr.batches import as_images
    >>> as_images(np.zeros((5, 1, 64, 48), np.uint8)).shape
    (5, 64, 48)
    """
    try:
        shapes = _shapes(X) if isinstance(X, list | tuple) else []
    except ValueError as error:
        raise InputError(f"X holds lists of unequal length: {error}") from error
    if shapes:
        for index, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise InputError(
                    f"X[0] has shape {shapes[0]} but X[{index}] has shape {shape}; images in an "
                    "array share one size: pass their paths, or resize them first"
                )
    elif getattr(X, "ndim", 0) not in (3, 4):
        return None
    images = np.asarray(X)
    if images.ndim not in (3, 4):
        return None
    if images.dtype.kind in "uf" and not images.dtype.isnative:
        images = images.astype(images.dtype.newbyteorder("="))
    if images.dtype == np.longdouble:
        images = images.astype(np.float64)
    if images.dtype not in (np.uint8, np.uint16, np.bool_) and images.dtype.kind != "f":
        found = f"X holds images of type {images.dtype}"
        if images.dtype.kind in "iu" and images.size:
            found += (
                f" with values from {images.min()} to {images.max()}, which may mean anything: "
                "scale them to [0, 1]"
            )
        raise InputError(f"{found}; pixels must be {_PIXEL_TYPES}")
    if 0 in images.shape:
        raise InputError(f"X has shape {images.shape}: found 0 sample(s) or images without pixels")
    if images.ndim == 3 and images.shape[2] == 3:
        raise InputError(
            f"X has shape {images.shape}: if it is one RGB image, pass X[None]; gray images are "
            "(n, H, W)"
        )
    if images.ndim == 4:
        images = _channels_last(images, channel_axis)
    height, width = images.shape[1:3]
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise InputError(
            f"X holds images of {height} x {width} pixels; {MAX_PIXELS} pixels and sides of "
            f"{MAX_SIDE} are allowed"
        )
    if images.dtype.kind == "f":
        for index, image in enumerate(images):
            check_magnitude(image, f"image {index}", allow_nan)
    return images


def check_magnitude(pixels: Array, where: str, allow_nan: bool = False) -> None:
    """Refuse floats whose squares float32 does not hold; with `allow_nan` all may be NaN."""
    largest = max(-float(pixels.min()), float(pixels.max()))
    if largest < _LARGEST:
        return
    if largest != largest or largest == np.inf:
        if allow_nan and np.isnan(pixels).all():
            return
        raise InputError(f"Input X contains NaN or infinity in {where}")
    raise InputError(
        f"X has pixels as large as {largest:g} in {where}, too large for float32; bring them to "
        "[0, 1]"
    )


def _shapes(X: list[Any] | tuple[Any, ...]) -> list[tuple[int, ...]]:
    """Shapes of what may be images; none where it is something else."""
    return [np.shape(x) for x in X] if len(X) and np.ndim(X[0]) >= 2 else []


def _channels_last(images: Array, channel_axis: int | str) -> Array:
    shape = images.shape
    if channel_axis == "auto":
        axes = [axis for axis in (1, 3) if shape[axis] in (1, 3)]
        if len(axes) != 1:
            which = "more than one axis" if axes else "no axis"
            raise InputError(
                f"X has shape {shape}, where {which} can be the channels (1 or 3 of them, second "
                "or last); set channel_axis=1 or channel_axis=-1"
                + ("" if axes else ", or pass gray images as (n, H, W)")
            )
        axis = axes[0]
    else:
        axis = int(channel_axis) % 4
        if shape[axis] not in (1, 3):
            raise InputError(
                f"X has shape {shape}, so channel_axis={channel_axis} means {shape[axis]} "
                "channels; 1 (gray) and 3 (RGB) are read"
            )
    images = np.moveaxis(images, axis, -1)
    return images[..., 0] if images.shape[-1] == 1 else images


def to_gray(images: Array) -> Array:
    """The luminance of RGB pixels ``(..., 3)`` in their own type, as Pillow computes it.

    ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B; equal channels give exactly their value.
    """
    red, green, blue = (images[..., i] for i in range(3))
    if images.dtype == np.bool_:
        return to_gray(images.astype(np.float32))
    if images.dtype == np.uint8:
        weighted = 19595 * red.astype(np.uint32) + 38470 * green.astype(np.uint32)
        weighted += 7471 * blue.astype(np.uint32) + 0x8000
        return (weighted >> 16).astype(np.uint8)
    if images.dtype != np.float64:
        red, green, blue = (channel.astype(np.float32) for channel in (red, green, blue))
    gray = green + 0.299 * (red - green) + 0.114 * (blue - green)
    return np.rint(gray).astype(np.uint16) if images.dtype == np.uint16 else gray


# --------------------------------------------------------------------------------------------
# batches
# --------------------------------------------------------------------------------------------


class ImageDataset(Dataset[Any]):
    """Images (and their labels and weights), handed out in whole batches.

    Parameters
    ----------
    items : list of str or ndarray of shape (n, H, W) or (n, H, W, 3)
        Paths, or images as :func:`as_images` gives them.
    size : (int, int)
        Height and width in pixels of what comes out.
    target : ndarray of shape (n,) of int64 or (n, k) of float, default=None
        Class of each image, or 0 and 1 for each finding; None for zeros.
    weight : ndarray of shape (n,) or (n, k), default=None
        Weight of each image, or of each finding in it; None for 1.
    dtype : torch.dtype, default=torch.float32
        Type of the pixels and weights that come out.
    ram_limit : int, default=0
        Bytes of decoded or resized images to hold for the next epochs.
    decode : Decoder, default=None
        What decodes paths, and how arrays are resized; None decodes without a cache on disk.
    on_error : {"raise", "nan"}, default="raise"
        With "nan", a file that cannot be read, or an image of NaN, is a black image and every
        batch ends with a list of those in it: ``(pixels, (target, weight, failures))``.

    Examples
    --------
    >>> import numpy as np
    >>> from skcxr.batches import ImageDataset
    >>> len(ImageDataset(np.zeros((5, 64, 48), np.uint8), size=(32, 32)))
    5
    """

    def __init__(
        self,
        items: list[str] | Array,
        size: tuple[int, int],
        target: Array | None = None,
        weight: Array | None = None,
        dtype: torch.dtype = torch.float32,
        ram_limit: int = 0,
        decode: Decoder | None = None,
        on_error: str = "raise",
    ) -> None:
        n = len(items)
        self.items = items
        self.size = size
        self.dtype = dtype
        self.target = torch.tensor(np.zeros(n, np.int64) if target is None else target)
        if self.target.is_floating_point():
            self.target = self.target.to(dtype)
        self.weight = torch.tensor(np.ones(n) if weight is None else weight, dtype=dtype)
        self.ram_left = ram_limit
        self.decode = Decoder() if decode is None else decode
        self.on_error = on_error
        self._held: dict[int, Array] = {}
        self._as_given = isinstance(items, np.ndarray) and items.shape[1:3] == size

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> Any:
        failures: list[Unreadable] = []
        try:
            pixels = torch.from_numpy(self._pixels(indices, failures))[:, None]
        except SkcxrError as error:
            if get_worker_info() is None:
                raise
            return error  # torch would turn it into a RuntimeError; BatchLoader raises it
        labels = (self.target[indices], self.weight[indices])
        if self.on_error == "nan":
            return pixels.to(self.dtype), (*labels, failures)
        return pixels.to(self.dtype), labels

    def _pixels(self, indices: list[int], failures: list[Unreadable]) -> Array:
        """Unit pixels, (B, H, W)."""
        if self._as_given:
            block = self.items[indices]  # type: ignore[call-overload]
            if self.on_error == "nan" and block.dtype.kind == "f" and np.isnan(block).any():
                block = block.copy()
                for image, index in zip(block, indices, strict=True):
                    if np.isnan(image).all():
                        image[:] = 0
                        failures.append(Unreadable(index, "", "the image is NaN"))
            block = to_gray(block) if block.ndim == 4 else block
            return block if block.dtype == np.float64 else to_unit(block)
        images: dict[int, Array] = {}
        missing = []
        for index in indices:
            if (image := self._find(index)) is None:
                missing.append(index)
            else:
                images[index] = image
        for index, fresh in zip(missing, map_in_threads(self._read, missing), strict=True):
            if isinstance(fresh, Unreadable):
                failures.append(fresh)
                fresh = np.zeros(self.size, np.uint8)
            images[index] = fresh
        for index, image in images.items():
            if index not in self._held and image.nbytes <= self.ram_left:
                self._held[index] = image
                self.ram_left -= image.nbytes
        found = [images[index] for index in indices]
        if all(image.dtype == found[0].dtype for image in found):
            return to_unit(np.stack(found))
        return np.stack([to_unit(image) for image in found])

    def _find(self, index: int) -> Array | None:
        """The image in memory or in the cache on disk, if it is there."""
        if index in self._held:
            return self._held[index]
        item = self.items[index]
        return self.decode.held(item, self.size) if isinstance(item, str) else None

    def _read(self, index: int) -> Array | Unreadable:
        item = self.items[index]
        if isinstance(item, str):
            try:
                return self.decode(item, self.size)
            except ImageReadError as error:
                if self.on_error == "raise":
                    raise
                return Unreadable(index, error.path, error.reason)
        if self.on_error == "nan" and item.dtype.kind == "f" and np.isnan(item).all():
            return Unreadable(index, "", "the image is NaN")
        if item.ndim == 3:
            item = to_gray(item)
        if item.dtype == np.bool_ or item.dtype == np.float16:
            item = to_unit(item)
        interpolation = self.decode.interpolation
        return resize(np.ascontiguousarray(item), self.size, interpolation=interpolation)


class EmbeddingDataset(Dataset[Any]):
    """Embeddings of images with the images' labels and weights, handed out in whole batches.

    Parameters
    ----------
    embeddings : torch.Tensor of shape (n, d)
        What a frozen backbone has made of each image.
    images : ImageDataset
        Where they come from; its targets and weights are taken.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skcxr.batches import EmbeddingDataset, ImageDataset
    >>> images = ImageDataset(np.zeros((5, 64, 48), np.uint8), size=(32, 32))
    >>> len(EmbeddingDataset(torch.zeros(5, 8), images))
    5
    """

    ram_left = 0

    def __init__(self, embeddings: torch.Tensor, images: ImageDataset) -> None:
        self.embeddings, self.target, self.weight = embeddings, images.target, images.weight

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitems__(self, indices: list[int]) -> Any:
        return self.embeddings[indices], (self.target[indices], self.weight[indices])

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])


def count_batches(n_images: int, batch_size: int) -> int:
    """Batches of an epoch; a last batch of one joins the one before it."""
    full, rest = divmod(n_images, batch_size)
    return max(1, full + (rest > 1))


class _Batches(Sampler[list[int]]):
    """Indices in batches; a last batch of one joins the one before it.

    Batch normalisation cannot train on a single image. `share` is (rank, number of processes): of
    each batch such a process gets its part, and all of one that is too small to be parted.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        generator: torch.Generator | None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.n, self.batch_size, self.generator = n, batch_size, generator
        self.share = share

    def __len__(self) -> int:
        return count_batches(self.n, self.batch_size)

    def skip(self) -> torch.Tensor:
        """The order of one epoch, which is over with that."""
        if self.generator is None:
            return torch.arange(self.n)
        return torch.randperm(self.n, generator=self.generator)

    def __iter__(self) -> Iterator[list[int]]:
        order = self.skip().tolist()
        last = len(self) - 1
        rank, n_processes = self.share
        for k in range(last + 1):
            batch = order[k * self.batch_size : (k + 1) * self.batch_size if k < last else None]
            yield batch[rank::n_processes] if len(batch) >= 2 * n_processes else batch


def _as_is(batch: Any) -> Any:
    return batch


class BatchLoader(DataLoader[Any]):
    """A DataLoader over an :class:`ImageDataset` that moves whole batches.

    Parameters
    ----------
    dataset : ImageDataset
        The images.
    batch_size : int
        Images in a batch; a last batch of one joins the one before it.
    shuffle_seed : int or None, default=None
        Seed of the order, new in every epoch; None keeps the order of the dataset.
    num_workers : int, default=0
        Processes that read images; 0 reads in this one. The batches are the same.
    share : (int, int), default=(0, 1)
        This process's number and the number of processes that share each batch.
    **kwargs : dict
        Further arguments of torch's DataLoader.

    Examples
    --------
    >>> import numpy as np
    >>> from skcxr.batches import BatchLoader, ImageDataset
    >>> dataset = ImageDataset(np.zeros((5, 64, 48), np.uint8), size=(32, 32))
    >>> [tuple(pixels.shape) for pixels, _ in BatchLoader(dataset, batch_size=2)]
    [(2, 1, 32, 32), (3, 1, 32, 32)]
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        shuffle_seed: int | None = None,
        num_workers: int = 0,
        share: tuple[int, int] = (0, 1),
        **kwargs: Any,
    ) -> None:
        order = None if shuffle_seed is None else torch.Generator().manual_seed(shuffle_seed)
        if num_workers:
            kwargs = {"persistent_workers": True, **kwargs}
            if multiprocessing.get_start_method(allow_none=True) == "loky":
                # joblib's own way, which starts none of torch's processes
                usual = multiprocessing.get_all_start_methods()[0]
                kwargs = {"multiprocessing_context": usual, **kwargs}
            dataset.ram_left //= num_workers  # each process holds what it has read
        super().__init__(
            dataset,
            batch_sampler=_Batches(len(dataset), batch_size, order, share),
            collate_fn=_as_is,
            num_workers=num_workers,
            generator=torch.Generator(),  # torch's own would move with the number of workers
            **kwargs,
        )

    def skip(self, n_epochs: int) -> None:
        """Let the order of the next epoch be that after `n_epochs` others.

        Parameters
        ----------
        n_epochs : int
            Epochs to leave out.
        """
        for _ in range(n_epochs):
            self.batch_sampler.skip()  # type: ignore[union-attr]

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            if isinstance(batch, SkcxrError):
                raise batch
            yield batch
