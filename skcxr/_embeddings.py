"""What a network that is held still makes of images: once for each image.

`CXRFeatures` gives these embeddings to other estimators; `CXRClassifier` trains its head on them
where nothing else of a fit changes.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from skcxr._cache import Decoder, EmbeddingCache
from skcxr._contamination import hash_bits, have_learnt
from skcxr._exceptions import Unreadable
from skcxr._shipped import Shipped
from skcxr.batches import BatchLoader, ImageDataset

Array = np.ndarray[Any, Any]


class Embedded(NamedTuple):
    """Embeddings of images."""

    rows: Array  # (n, size); NaN where an image could not be read
    failures: list[Unreadable]
    learnt: Array  # (n,): which of them have trained the weights, as far as the package can tell


@dataclass(frozen=True)
class Embedder:
    """Items of a checked X -> embeddings, shape (n, `size`).

    Parameters
    ----------
    function : callable
        Pixels ``(B, 1, H, W)`` -> embeddings ``(B, size)``.
    size : int
        Numbers in an embedding.
    image_size : (int, int)
        Height and width in pixels that images are brought to.
    decode : Decoder
        What decodes and resizes files.
    cache : EmbeddingCache
        Where embeddings are kept.
    shipped : Shipped or None, default=None
        Weights of the package, whose images are looked for.
    """

    function: Callable[[Tensor], Tensor]
    size: int
    image_size: tuple[int, int]
    decode: Decoder
    cache: EmbeddingCache
    batch_size: int
    num_workers: int = 0
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    verbose: bool = False
    shipped: Shipped | None = None

    def __call__(self, items: list[str] | Array, on_error: str = "raise") -> Embedded:
        """Embed all items."""
        kind = torch.empty(0, dtype=self.dtype).numpy().dtype
        embeddings = np.empty((len(items), self._width), kind)
        failures: list[Unreadable] = []
        names: list[str | None] = [None] * len(items)
        missing = list(range(len(items)))
        if self.cache.folder is not None:
            names = [self.cache.entry(item) for item in items]
            missing = [index for index in missing if not self._load(names, index, embeddings)]
        with contextlib.closing(self._batches(items, on_error, missing, names, embeddings)) as them:
            for batch, pixels, unread in _shown(them, len(missing)) if self.verbose else them:
                with torch.no_grad():
                    found = self.function(pixels.to(self.device)).to(self.dtype).cpu().numpy()
                if self.shipped is not None:
                    learnt = have_learnt(self.shipped, hash_bits(pixels))
                    found = np.column_stack([found, learnt.astype(kind)])
                bad = {failure.position for failure in unread}
                failures += unread
                for index, embedding in zip(batch, found, strict=True):
                    embeddings[index] = np.nan if index in bad else embedding
                    if index not in bad:
                        self.cache.store(names[index], embedding)
        failures.sort(key=lambda failure: failure.position)
        if self.shipped is None:
            return Embedded(embeddings, failures, np.zeros(len(items), dtype=bool))
        return Embedded(embeddings[:, :-1].copy(), failures, embeddings[:, -1] == 1)

    @property
    def _width(self) -> int:
        """Numbers kept of an image: with weights of the package, whether they have learnt it."""
        return self.size + (self.shipped is not None)

    def _load(self, names: list[str | None], index: int, embeddings: Array) -> bool:
        """Whether the embedding is in the cache, from where it is taken."""
        held = self.cache.load(names[index], self._width)
        if held is not None:
            embeddings[index] = held
        return held is not None

    def _batches(
        self, items: list[str] | Array, on_error: str, missing: list[int],
        names: list[str | None], embeddings: Array,
    ) -> Generator[_Batch, None, None]:  # fmt: skip
        """Indices of what is to be embedded, its pixels, and what of it cannot be read."""
        if not missing:
            return
        given: dict[str, Any] = {"dtype": self.dtype, "decode": self.decode, "on_error": on_error}
        if self.num_workers:  # they have read ahead what another process may do meanwhile
            wanted = [items[k] for k in missing] if isinstance(items, list) else items[missing]
            dataset = ImageDataset(wanted, self.image_size, **given)
            at = 0
            for pixels, labels in BatchLoader(dataset, self.batch_size, None, self.num_workers):
                batch = missing[at : at + len(pixels)]
                at += len(pixels)
                unread = [x._replace(position=missing[x.position]) for x in _unread(labels)]
                yield batch, pixels, unread
            return
        dataset = ImageDataset(items, self.image_size, **given)
        for batch in self._turns(missing, names, embeddings):
            pixels, labels = dataset.__getitems__(batch)
            yield batch, pixels, _unread(labels)

    def _turns(
        self, missing: list[int], names: list[str | None], embeddings: Array
    ) -> Iterator[list[int]]:
        """Batches of indices: of what no other process is at, then of what these have not kept.

        Processes of a search that start with the same images share the work that way. None waits
        for another, which may have been killed.
        """
        for first in (True, False):
            left: list[int] = []
            batch: list[int] = []
            with contextlib.ExitStack() as claims:
                for k, index in enumerate(missing):
                    name = names[index]
                    if name is not None:
                        if first and not claims.enter_context(self.cache.claimed(name)):
                            left.append(index)
                        elif not self._load(names, index, embeddings):
                            batch.append(index)
                    else:
                        batch.append(index)
                    # a last batch of one joins the one before it, as everywhere
                    if len(batch) >= self.batch_size and k != len(missing) - 2:
                        yield batch
                        batch = []
                        claims.close()
                if batch:
                    yield batch
            missing = left


_Batch = tuple[list[int], Tensor, list[Unreadable]]


def _unread(labels: Any) -> list[Unreadable]:
    return labels[2] if len(labels) > 2 else []


def _shown(batches: Iterator[_Batch], n_images: int) -> Iterator[_Batch]:
    """The batches, with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("embedding", total=n_images)
        for batch in batches:
            yield batch
            progress.advance(task, len(batch[0]))


def cache_mark(
    of_network: str,
    image_size: tuple[int, int],
    interpolation: str,
    layer: Any = None,
    pooling: str | None = None,
    amp: bool = False,
    shipped: Shipped | None = None,
) -> str:
    """All that an embedding depends on beside the image; the same for every estimator."""
    mark = f"{of_network} {(image_size, interpolation, layer, pooling, amp)}"
    return mark if shipped is None else f"{mark} {shipped.name}"


def fingerprint(network: nn.Module, *parts: Any) -> str:
    """All that the network adds to a :func:`cache_mark`, as a hash: weights, and `parts`."""
    versions = torch.__version__, version("torchvision")
    digest = hashlib.sha256(repr((versions, *parts)).encode("utf-8", "backslashreplace"))
    for name, module in network.named_modules():  # strides, poolings and what else has no tensors
        if module is not network.head:
            described = type(module).__name__ if any(module.children()) else repr(module)
            digest.update(f"{name} {described}\n".encode())
    head = {tensor.data_ptr() for tensor in network.head.parameters()}  # type: ignore[union-attr]
    for name, tensor in sorted(network.state_dict().items()):
        if tensor.data_ptr() in head and tensor.numel():
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()
