"""What a network that is held still makes of images: once for each image.

`CXRFeatures` gives these embeddings to other estimators; `CXRClassifier` trains its head on them
where nothing else of a fit changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skcxr._cache import Decoder, EmbeddingCache
from skcxr._exceptions import Unreadable
from skcxr.batches import BatchLoader, ImageDataset

Array = np.ndarray[Any, Any]


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

    def __call__(
        self, items: list[str] | Array, on_error: str = "raise"
    ) -> tuple[Array, list[Unreadable]]:
        """Embeddings of all items, and which of them could not be read and are NaN."""
        kind = torch.empty(0, dtype=self.dtype).numpy().dtype
        embeddings = np.empty((len(items), self.size), kind)
        failures: list[Unreadable] = []
        names: list[str | None] = [None] * len(items)
        if self.cache.folder is not None:
            names = [self.cache.entry(item) for item in items]
        missing = []
        for index, name in enumerate(names):
            if (held := self.cache.load(name, self.size)) is None:
                missing.append(index)
            else:
                embeddings[index] = held
        if not missing:
            return embeddings, failures
        if len(missing) == len(items):
            wanted = items
        elif isinstance(items, list):
            wanted = [items[index] for index in missing]
        else:
            wanted = items[missing]
        dataset = ImageDataset(
            wanted, self.image_size, dtype=self.dtype, decode=self.decode, on_error=on_error
        )
        at = 0
        loader = BatchLoader(dataset, self.batch_size, num_workers=self.num_workers)
        for pixels, labels in _shown(loader) if self.verbose else loader:
            with torch.no_grad():
                batch = self.function(pixels.to(self.device)).to(self.dtype).cpu().numpy()
            unread = {failure.position: failure for failure in (labels[2:] or ([],))[0]}
            for k, embedding in enumerate(batch, at):
                index = missing[k]
                if k in unread:
                    embeddings[index] = np.nan
                    failures.append(unread[k]._replace(position=index))
                else:
                    embeddings[index] = embedding
                    self.cache.store(names[index], embedding)
            at += len(batch)
        return embeddings, failures


def _shown(loader: BatchLoader) -> Any:
    """The batches, with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import track

    return track(loader, "embedding", total=len(loader), console=Console(stderr=True))


def cache_mark(
    of_network: str,
    image_size: tuple[int, int],
    interpolation: str,
    layer: Any = None,
    pooling: str | None = None,
    amp: bool = False,
) -> str:
    """All that an embedding depends on beside the image; the same for every estimator."""
    return f"{of_network} {(image_size, interpolation, layer, pooling, amp)}"


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
