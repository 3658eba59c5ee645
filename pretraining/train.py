"""Radiographs of a folder -> weights, the hashes of the images, and what is to be known of both."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import save

import skcxr
from pretraining.augmentation import HospitalAugmentation
from skcxr import CXRClassifier, ImageLoader
from skcxr._contamination import hash_bits
from skcxr._patients import patient_from_name
from skcxr._shipped import SHIPPED

NAME = "cxr"

RECIPE: dict[str, Any] = {
    "max_epochs": 40,
    "batch_size": 32,
    "lr": 0.003,
    "lr_schedule": "onecycle",
    "weight_decay": 0.01,
    "label_smoothing": 0.05,
    "amp": True,
    "interpolation": "hamming",
    "random_state": 0,
}
TRAINED = {"width": 48}  # the head of the training is not kept, so its pooling may be another
CHANGES = {
    "degrees": 12, "translate": 0.08, "scale": 0.2, "gamma": 0.4, "contrast": 0.3, "aspect": 0.3,
    "interpolation": "bilinear",
}  # fmt: skip


def person(path: str) -> str | None:
    """Who is on a film of Kermany et al., whatever the cause: ``person10`` or ``IM-0115``."""
    patient = patient_from_name(path)
    return None if patient is None else re.sub(r"_(bacteria|virus)$", "", patient).lower()


def list_films(folder: Path, leave_out: Path | None = None) -> tuple[list[str], np.ndarray]:
    """Find the training films of Kermany et al. and their labels.

    Parameters
    ----------
    folder : Path
        Folders NORMAL and PNEUMONIA, perhaps in folders of splits, of which "train" alone is taken.
    leave_out : Path or None, default=None
        A table with a column "path": films of the persons in it are left out.

    Returns
    -------
    paths : list of str
        The films, sorted.
    labels : ndarray of shape (n,)
        "normal", "bacteria" or "virus".
    """
    bunch = skcxr.load_cxr_folder(folder)
    hidden: set[str | None] = set()
    if leave_out is not None:
        import pandas as pd

        hidden = set(map(person, pd.read_csv(leave_out)["path"])) - {None}
    paths = [
        path
        for path, split in zip(bunch.data, bunch.split, strict=True)
        if split in ("", "train") and person(path) not in hidden
    ]
    paths.sort(key=lambda path: path.replace(os.sep, "/"))
    causes = [re.search(r"_(bacteria|virus)_", os.path.basename(path)) for path in paths]
    return paths, np.array([cause[1] if cause else "normal" for cause in causes])


def train(
    data: Path, out: Path, leave_out: Path | None = None, epochs: int | None = None,
    device: str = "cpu",
) -> None:  # fmt: skip
    """Train, and write ``cxr.safetensors``, ``cxr.hashes.npy`` and ``cxr.json`` into `out`.

    A run that was stopped goes on from its last epoch when it is started again.
    """
    console = Console(stderr=True)
    out.mkdir(parents=True, exist_ok=True)
    shipped = SHIPPED[NAME]
    paths, labels = list_films(data, leave_out)
    patients = {person(path) for path in paths}
    console.print(f"{len(paths)} films of {len(patients)} patients")
    recipe = {**RECIPE, **({} if epochs is None else {"max_epochs": epochs})}
    classifier = CXRClassifier(
        shipped.backbone,
        image_size=shipped.image_size,
        augmentation=HospitalAugmentation(**CHANGES),  # type: ignore[arg-type]
        net_params={f"module__{key}": value for key, value in TRAINED.items()},
        checkpoint=out / "checkpoint",
        device=device,
        verbose=1,
        **recipe,
    )
    classifier.fit(paths, labels)

    tensors = halve(classifier.module_.state_dict())
    file = out / f"{NAME}.safetensors"
    file.write_bytes(save(tensors, {"format": "pt"}))
    np.save(out / f"{NAME}.hashes.npy", hashes(paths, shipped.image_size))
    facts = {
        "weights": NAME,
        "backbone": shipped.backbone,
        "arguments": dict(shipped.arguments),
        "trained_with": TRAINED,
        "image_size": list(shipped.image_size),
        "recipe": {**recipe, "augmentation": {"HospitalAugmentation": CHANGES}},
        "films": len(paths),
        "patients": len(patients),
        "of_label": {name: int((labels == name).sum()) for name in np.unique(labels)},
        "left_out": None if leave_out is None else leave_out.name,
        "files_sha256": digest_of_names(paths),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "bytes": file.stat().st_size,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("skcxr", "torch", "torchvision", "scikit-learn",
                                                "skorch", "pillow", "numpy")},
        },
    }  # fmt: skip
    (out / f"{NAME}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    console.print(f"{file}: {facts['bytes']:,} bytes, sha256 {facts['sha256']}")


def halve(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors without the head, those of layers in float16; statistics stay as they are."""
    return {
        name: (tensor.half() if tensor.ndim > 2 else tensor).detach().cpu().contiguous()
        for name, tensor in state.items()
        if ".head." not in name and not name.endswith("num_batches_tracked")
    }


def hashes(paths: list[str], image_size: tuple[int, int]) -> np.ndarray:
    """Perceptual hashes of films, ``(n, 16)`` bytes."""
    bits = []
    loader = ImageLoader(image_size=image_size)
    for start in track(range(0, len(paths), 64), "hashing", console=Console(stderr=True)):
        pixels = torch.from_numpy(np.asarray(loader.fit_transform(paths[start : start + 64])))
        bits.append(np.packbits(hash_bits(pixels.view(-1, 1, *image_size)), axis=1))
    return np.concatenate(bits)


def digest_of_names(paths: list[str]) -> str:
    """One checksum for the sorted names and contents of all files."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=os.path.basename):
        content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        digest.update(f"{content}  {os.path.basename(path)}\n".encode())
    return digest.hexdigest()
