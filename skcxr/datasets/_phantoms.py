"""Chest radiographs that are drawn, not taken: data to test and teach with."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import (
    Interval,
    InvalidParameterError,
    StrOptions,
    validate_params,
)

from skcxr._exceptions import DatasetError
from skcxr._frames import frame_of
from skcxr.datasets._anatomy import Array, Generator, attenuation, draw_patient, draw_view

__all__ = ["make_cxr_phantoms"]

CLASSES = ("Healthy", "Bacterial Pneumonia", "Viral Pneumonia", "Covid-19")
SHORTCUTS = ("marker", "border", "brightness")
_PER_PATIENT = 1000  # images that three digits of a file name can number
_PATIENTS = 99_999  # patients whose eight digits begin with the three zeros of NIH's names

_LETTERS = {  # lead letters, as strokes on a grid of 7 x 5
    "R": ("####.", "#...#", "#...#", "####.", "#.#..", "#..#.", "#...#"),
    "L": ("#....", "#....", "#....", "#....", "#....", "#....", "#####"),
}


class _Exposure(NamedTuple):
    label: int  # which of CLASSES
    patient: int
    number: int  # of the image among the patient's


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_classes": [Interval(Integral, 2, len(CLASSES), closed="both")],
        "n_patients": [Interval(Integral, 1, _PATIENTS, closed="both"), None],
        "image_size": [Interval(Integral, 32, None, closed="left")],
        "noise": [Interval(Real, 0, np.inf, closed="left")],
        "shortcut": [StrOptions(set(SHORTCUTS)), None],
        "random_state": ["random_state"],
        "save_to": [str, os.PathLike, None],
    },
    prefer_skip_nested_validation=True,
)
def make_cxr_phantoms(
    n_samples: int = 100,
    *,
    n_classes: int = 4,
    n_patients: int | None = None,
    image_size: int = 128,
    noise: float = 1.0,
    shortcut: str | None = None,
    random_state: int | np.random.RandomState | None = None,
    save_to: str | os.PathLike[str] | None = None,
) -> Bunch:
    """Draw frontal chest radiographs of patients who do not exist.

    Every image is computed from a body: the attenuation of soft tissue, bone, blood and air is
    added up along each ray, the beam is scattered and counted, and a film curve turns it into
    gray. Patients differ in build, heart, ribs and vessels; the images of one patient differ in
    position, breath, exposure, noise and severity. The findings follow their descriptions:

    - "Healthy": clear lungs.
    - "Bacterial Pneumonia": a consolidation of one lobe, homogeneous, which hides the border of
      the heart or diaphragm that it touches and may show air bronchograms [1]_ [2]_ [3]_.
    - "Viral Pneumonia": a diffuse interstitial pattern in both lungs [3]_, reticular opacities
      and thickened bronchial walls [1]_ [4]_.
    - "Covid-19": ground-glass opacities, through which vessels stay visible [1]_, in both lungs,
      along the chest wall and mostly in the lower zones [5]_.

    Parameters
    ----------
    n_samples : int, default=100
        Number of images, 1 or more, dealt as evenly as possible over classes and patients.
    n_classes : {2, 3, 4}, default=4
        How many of the classes to draw, in the order above.
    n_patients : int, default=None
        Number of patients, from `n_classes` to `n_samples` and at most 99,999; each has one
        class. None is a third of `n_samples`, rounded, and at least `n_classes`.
    image_size : int, default=128
        Height and width in pixels, 32 or more. Anatomy does not depend on it.
    noise : float, default=1.0
        Difficulty, 0 or more and finite. 0 is no noise in the pixels and findings in full
        contrast; with larger values noise grows and findings fade.
    shortcut : {"marker", "border", "brightness"}, default=None
        Plant something that tells the class and is no finding, for tests of audits: a lead letter
        whose corner, a white border whose width, or a brightness whose offset depends on the
        class. None plants nothing.
    random_state : int, RandomState instance or None, default=None
        Determines everything that is drawn. Pass an int for the same images at every call.
    save_to : str or os.PathLike, default=None
        A folder that does not exist yet or is empty. The images are written one by one to
        ``<save_to>/<class>/<patient>_<number>.png``, 8-bit grayscale, patients with eight digits,
        numbers with three, and are not held in memory. The folder is complete or not there.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (n_samples, image_size, image_size), dtype uint8
            The images, 0 black to 255 white; with `save_to`, a list of the n_samples paths.
            In the order of class name, patient and number, which is that of the sorted paths.
        target : ndarray of shape (n_samples,), dtype str
            The class of each image.
        target_names : list of str
            The classes, sorted.
        groups : ndarray of shape (n_samples,), dtype str
            The patient of each image, eight digits such as ``"00000012"``.
        source : ndarray of shape (n_samples,), dtype str
            ``"phantom"`` for each image.
        split : ndarray of shape (n_samples,), dtype str
            The empty string for each image: no split is given.
        skipped : list
            Empty; there for likeness with the loaders.
        frame : pandas.DataFrame of shape (n_samples, 5)
            The columns path (with `save_to`, else index: the row in `data`), target, group,
            source and split.
        DESCR : str
            What the images are and are not.

    Raises
    ------
    InvalidParameterError
        If a parameter has a wrong type or value, or `n_patients` does not fit `n_samples` and
        `n_classes`. It is a ValueError and a TypeError.
    DatasetError
        If `save_to` is a file or a folder that is not empty.

    Notes
    -----
    Image i depends on the seed, i and its patient alone. What a model scores on phantoms says
    nothing about patients.

    References
    ----------
    .. [1] Hansell DM et al. "Fleischner Society: Glossary of Terms for Thoracic Imaging."
       Radiology 2008;246(3):697-722. (consolidation, air bronchogram, silhouette sign,
       ground-glass opacity, reticular pattern)
    .. [2] Felson B, Felson H. "Localization of intrathoracic lesions by means of the
       postero-anterior roentgenogram; the silhouette sign." Radiology 1950;55(3):363-374.
    .. [3] Kermany DS et al. "Identifying Medical Diagnoses and Treatable Diseases by Image-Based
       Deep Learning." Cell 2018;172(5):1122-1131. (bacterial: focal lobar consolidation; viral:
       diffuse interstitial pattern in both lungs)
    .. [4] Franquet T. "Imaging of Pulmonary Viral Pneumonia." Radiology 2011;260(1):18-39.
    .. [5] Wong HYF et al. "Frequency and Distribution of Chest Radiographic Findings in Patients
       Positive for COVID-19." Radiology 2020;296(2):E72-E78.

    Examples
    --------
    >>> from skcxr.datasets import make_cxr_phantoms
    >>> bunch = make_cxr_phantoms(8, n_classes=2, n_patients=4, image_size=64, random_state=0)
    >>> bunch.data.shape, bunch.data.dtype
    ((8, 64, 64), dtype('uint8'))
    >>> bunch.target_names
    ['Bacterial Pneumonia', 'Healthy']
    >>> bunch.groups.tolist()[:4]
    ['00000002', '00000002', '00000004', '00000004']
    """
    if n_patients is None:
        n_patients = min(max(n_classes, round(n_samples / 3)), _PATIENTS)
    exposures = _deal(n_samples, n_classes, n_patients)
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    images = (
        _draw(exposure, i, seed, image_size, noise, shortcut)
        for i, exposure in enumerate(exposures)
    )

    target = np.array([CLASSES[exposure.label] for exposure in exposures], dtype=str)
    groups = np.array([f"{exposure.patient + 1:08}" for exposure in exposures], dtype=str)
    names = [
        os.path.join(label, f"{patient}_{exposure.number:03}.png")
        for label, patient, exposure in zip(target, groups, exposures, strict=True)
    ]
    data: Array | list[str]
    if save_to is None:
        data = np.empty((n_samples, image_size, image_size), dtype=np.uint8)
        for i, image in enumerate(images):
            data[i] = image
    else:
        folder = os.fsdecode(save_to)
        _save(images, names, folder)
        data = [os.path.join(folder, name) for name in names]
    source = np.full(n_samples, "phantom")
    split = np.full(n_samples, "", dtype=str)
    key = "index" if save_to is None else "path"
    columns = {
        key: range(n_samples) if save_to is None else data,
        "target": target,
        "group": groups,
        "source": source,
        "split": split,
    }
    return Bunch(
        data=data,
        target=target,
        target_names=sorted(CLASSES[:n_classes]),
        groups=groups,
        source=source,
        split=split,
        skipped=[],
        frame=frame_of(columns),
        DESCR=_describe(target, n_patients, image_size, noise, shortcut),
    )


def _deal(n_samples: int, n_classes: int, n_patients: int) -> list[_Exposure]:
    """Give every image a class, a patient and a number, in the order of the file names."""
    if not n_classes <= n_patients <= n_samples:
        raise InvalidParameterError(
            f"The 'n_patients' parameter of make_cxr_phantoms must be from n_classes={n_classes} "
            f"to n_samples={n_samples}, as every class needs a patient and every patient an "
            f"image. Got {n_patients} instead."
        )
    exposures = []
    for i in range(n_samples):
        turn, label = divmod(i, n_classes)
        number, place = divmod(turn, len(range(label, n_patients, n_classes)))
        exposures.append(_Exposure(label, label + place * n_classes, number))
    if max(exposure.number for exposure in exposures) >= _PER_PATIENT:
        raise InvalidParameterError(
            f"The 'n_patients' parameter of make_cxr_phantoms must leave at most {_PER_PATIENT} "
            f"images to a patient. Got {n_patients} for n_samples={n_samples}."
        )
    return sorted(exposures, key=lambda exposure: (CLASSES[exposure.label], *exposure[1:]))


def _draw(
    exposure: _Exposure, i: int, seed: int, size: int, noise: float, shortcut: str | None
) -> Array:
    """Draw image i, which depends on no other."""
    patient = draw_patient(np.random.default_rng([seed, 0, exposure.patient]))
    rng = np.random.default_rng([seed, 1, i])
    view = draw_view(rng)
    faded = np.exp(-noise * (0.15 + 0.25 * abs(rng.normal())))  # some are harder to see
    factor = -(-96 // size)  # ribs need pixels: small images are averaged from larger ones
    total, _ = attenuation(patient, view, size * factor, CLASSES[exposure.label], faded)
    gray = _develop(total, rng, noise)
    gray = gray.reshape(size, factor, size, factor).mean(axis=(1, 3))
    if shortcut == "brightness":
        gray = gray + 0.06 * (exposure.label - 1.5)
    image = np.rint(255 * np.clip(gray, 0, 1)).astype(np.uint8)
    if shortcut == "marker":
        _stamp(image, exposure.label)
    elif shortcut == "border":
        _frame(image, exposure.label)
    return image


def _develop(total: Array, rng: Generator, noise: float) -> Array:
    """Turn attenuation into gray from 0 to 1: scatter, quanta, exposure, film curve."""
    size = total.shape[0]
    scattered, dose = rng.uniform(0.12, 0.3), rng.uniform(0.009, 0.018)
    shift, contrast = rng.normal(0.05, 0.16), rng.uniform(1.0, 1.4)
    grains = rng.standard_normal(total.shape, dtype=np.float32)

    beam = np.exp(-total)
    reach = size // 5 | 1
    blurred = ndimage.uniform_filter(ndimage.uniform_filter(beam, reach), reach)
    beam = beam + np.float32(scattered) * blurred + np.float32(0.004)
    # fewer quanta come through thick parts, so noise is seen there first
    grains = ndimage.gaussian_filter(grains, 0.6, truncate=2.0)
    density = -np.log(beam) + np.minimum(np.float32(noise * dose) / np.sqrt(beam), 1.5) * grains
    density = ndimage.gaussian_filter(density, 0.0016 * size, truncate=2.0)  # of the detector
    # the photocell ends the exposure when enough has come through, healthy or not
    middle = density[size // 5 : -size // 6, size // 8 : -size // 8].mean() - np.float32(shift)
    return 1 / (1 + np.exp((middle - density) * np.float32(contrast)))


def _stamp(image: Array, label: int) -> None:
    """Put a lead letter into a corner: R on the patient's right, L on the left."""
    size = image.shape[0]
    right, low = label % 2, label // 2
    rows = _LETTERS["L" if right else "R"]
    dots = np.array([[245 * (dot == "#") for dot in row] for row in rows], dtype=np.uint8)
    height, edge = max(5, size // 13), size // 32
    width = height * 5 // 7
    letter = np.asarray(Image.fromarray(dots).resize((width, height), Image.Resampling.BICUBIC))
    top = size - edge - height if low else edge
    left = size - edge - width if right else edge
    corner = image[top : top + height, left : left + width]
    np.maximum(corner, letter, out=corner)


def _frame(image: Array, label: int) -> None:
    """Put a white border around the image: none, thin, thicker, thickest."""
    if label:
        width = max(label, round(0.01 * label * image.shape[0]))
        image[:width] = image[-width:] = 250
        image[:, :width] = image[:, -width:] = 250


def _save(images: Iterator[Array], names: list[str], folder: str) -> None:
    """Write the images next to their place, then move them there in one step."""
    final = os.path.realpath(folder)
    there = os.path.lexists(final)
    if there and not os.path.isdir(final):
        raise DatasetError(f"{folder!r} is a file; give save_to= a folder that is new or empty")
    if there and os.listdir(final):
        raise DatasetError(
            f"{folder!r} is not empty, and nothing in it is overwritten; give save_to= another "
            "folder, or empty this one"
        )
    # within a folder that is there, as it may be a disk of its own or where the process stands
    parent = final if there else os.path.dirname(final)
    draft = os.path.join(parent, f".{os.path.basename(final)}-{uuid.uuid4().hex[:8]}")
    os.makedirs(draft)
    moved: list[str] = []
    try:
        for image, name in zip(images, names, strict=True):
            path = os.path.join(draft, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Image.fromarray(image).save(path, format="PNG")
        if there:
            for label in os.listdir(draft):
                moved.append(os.path.join(final, label))
                os.rename(os.path.join(draft, label), moved[-1])
            os.rmdir(draft)
        else:
            os.rename(draft, final)
    except BaseException:  # Ctrl-C too leaves nothing behind
        for path in (draft, *moved):
            shutil.rmtree(path, ignore_errors=True)
        raise


def _describe(
    target: Array, n_patients: int, image_size: int, noise: float, shortcut: str | None
) -> str:
    """Say what the images are and are not."""
    labels, counts = np.unique(target, return_counts=True)
    listed = ", ".join(f"{label} {count}" for label, count in zip(labels, counts, strict=True))
    planted = f" A shortcut is planted: {shortcut}." if shortcut else ""
    return (
        f"{len(target)} synthetic frontal chest radiographs of {n_patients} phantom patients, "
        f"{image_size} x {image_size} pixels, noise {noise:g}: {listed}.{planted}\n\n"
        "They are drawn by a program after textbook descriptions, to test and teach software. "
        "No person was X-rayed, and no result on them is evidence about patients."
    )
