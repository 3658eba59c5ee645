"""The exceptions and warnings of skcxr.

Every class is also the builtin that fits, so ``except OSError`` or
``except ValueError`` catch it too::

    Exception
    └── SkcxrError
        ├── ImageReadError            (OSError)      a file cannot be read as an image
        ├── InputError                (ValueError)   X, y, weights or groups cannot be used
        ├── DatasetError              (ValueError)   a folder or table is no data set
        ├── WeightsError              (ValueError)   weights cannot be found or do not fit
        ├── ModelFileError            (OSError)      a saved model cannot be loaded
        ├── CheckpointError           (OSError)      a fit cannot keep or take up its state
        ├── DownloadError             (OSError)      a public data set cannot be fetched
        ├── TrainingError             (RuntimeError) a loss is no number any more
        ├── PredictionError           (RuntimeError) parts of a long prediction failed
        └── MissingDependencyError    (ImportError)  an extra is not installed

    UserWarning
    └── SkcxrWarning
        ├── PatientWarning            patients are unknown where they matter
        ├── ContaminationWarning      images have trained the weights that a model starts from
        └── ImageReadWarning          some images could not be read and became NaN

Parameters of a wrong type or range raise scikit-learn's ``InvalidParameterError`` (a
``ValueError`` and ``TypeError``), an estimator used before ``fit`` its ``NotFittedError``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = [
    "CheckpointError",
    "ContaminationWarning",
    "DatasetError",
    "DownloadError",
    "ImageReadError",
    "ImageReadWarning",
    "InputError",
    "MissingDependencyError",
    "ModelFileError",
    "PatientWarning",
    "PredictionError",
    "SkcxrError",
    "SkcxrWarning",
    "TrainingError",
    "WeightsError",
]


class SkcxrError(Exception):
    """Base of every exception that skcxr defines.

    Examples
    --------
    >>> from skcxr import SkcxrError, read_image
    >>> try:
    ...     read_image("gone.png")
    ... except SkcxrError as error:
    ...     print(type(error).__name__)
    ImageReadError
    """


class ImageReadError(SkcxrError, OSError):
    """A file cannot be read as an image.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    reason : str
        What is wrong with it, in a few words.

    Attributes
    ----------
    path : str
        The file, as it was given.
    reason : str
        What is wrong with it.

    Examples
    --------
    >>> from skcxr import ImageReadError
    >>> error = ImageReadError("a.png", "the file is empty")
    >>> print(error)
    cannot read 'a.png' as an image: the file is empty
    >>> error.path, error.reason
    ('a.png', 'the file is empty')
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path = os.fspath(path)
        self.reason = reason
        super().__init__(f"cannot read {self.path!r} as an image: {reason}")

    def __str__(self) -> str:
        return f"cannot read {self.path!r} as an image: {self.reason}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)


class InputError(SkcxrError, ValueError):
    """X, y, sample_weight or groups cannot be used as given.

    Examples
    --------
    >>> from skcxr import CXRClassifier, InputError
    >>> try:
    ...     CXRClassifier().fit(["a.png", "b.png"], ["Healthy"])
    ... except InputError as error:
    ...     print(error)
    X holds 2 images but y has 1 entries: inconsistent numbers of samples
    """


class DatasetError(SkcxrError, ValueError):
    """A folder, table or archive does not hold a data set that can be loaded.

    Examples
    --------
    >>> from skcxr import DatasetError, load_cxr_folder
    >>> try:
    ...     load_cxr_folder("gone")
    ... except DatasetError as error:
    ...     print(error)
    'gone' does not exist; give a folder that has one sub-folder per class
    """


class WeightsError(SkcxrError, ValueError):
    """Weights cannot be found, read or fitted onto a network.

    Examples
    --------
    >>> from skcxr import CXRClassifier, WeightsError, make_cxr_phantoms
    >>> drawn = make_cxr_phantoms(4, n_classes=2, image_size=32, random_state=0)
    >>> try:
    ...     CXRClassifier(weights="gone").fit(drawn.data, drawn.target)
    ... except WeightsError as error:
    ...     print("weights='gone'" in str(error))
    True
    """


class ModelFileError(SkcxrError, OSError):
    """A saved model cannot be loaded.

    Parameters
    ----------
    path : str or os.PathLike
        The model or the file in it.
    reason : str
        What is wrong with it, in a few words.

    Attributes
    ----------
    path : str
        As it was given.
    reason : str
        What is wrong with it.

    Examples
    --------
    >>> from skcxr import ModelFileError
    >>> print(ModelFileError("model", "there is no such folder"))
    cannot load the model 'model': there is no such folder
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.path = os.fspath(path)
        self.reason = reason
        super().__init__(str(self))

    def __str__(self) -> str:
        return f"cannot load the model {self.path!r}: {self.reason}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)


class CheckpointError(SkcxrError, OSError):
    """The state of a fit cannot be kept in its folder, or cannot be taken up from there.

    Examples
    --------
    >>> import os, tempfile
    >>> from skcxr import CheckpointError, CXRClassifier, make_cxr_phantoms
    >>> drawn = make_cxr_phantoms(4, n_classes=2, image_size=32, random_state=0)
    >>> folder = os.path.join(tempfile.mkdtemp(), "fit")
    >>> clf = CXRClassifier(max_epochs=1, checkpoint=folder, random_state=0)
    >>> clf = clf.fit(drawn.data, drawn.target)
    >>> try:
    ...     clf.set_params(random_state=1).fit(drawn.data, drawn.target)
    ... except CheckpointError as error:
    ...     print("random_state" in str(error))
    True
    """


class DownloadError(SkcxrError, OSError):
    """A public data set cannot be fetched; the message says where to put its file by hand.

    Examples
    --------
    >>> from skcxr import DownloadError
    >>> issubclass(DownloadError, OSError)
    True
    """


class TrainingError(SkcxrError, RuntimeError):
    """A fit cannot go on, because its loss is no number any more.

    Examples
    --------
    >>> from skcxr import CXRClassifier, TrainingError, make_cxr_phantoms
    >>> drawn = make_cxr_phantoms(4, n_classes=2, image_size=32, random_state=0)
    >>> clf = CXRClassifier(lr=1e30, optimizer="sgd", max_epochs=9, random_state=0)
    >>> try:
    ...     clf.fit(drawn.data, drawn.target)
    ... except TrainingError as error:
    ...     print("learning rate" in str(error))
    True
    """


class PredictionError(SkcxrError, RuntimeError):
    """Shards of a long prediction could not be predicted or written; the others are there.

    Examples
    --------
    >>> from skcxr import PredictionError
    >>> issubclass(PredictionError, RuntimeError)
    True
    """


class MissingDependencyError(SkcxrError, ImportError):
    """A library of an extra is needed and not installed.

    Parameters
    ----------
    library : str
        The name under which it is imported.
    extra : str
        The extra of skcxr that installs it.

    Attributes
    ----------
    library, extra : str
        As given.

    Examples
    --------
    >>> from skcxr import MissingDependencyError
    >>> print(MissingDependencyError("skops", "skops"))
    skops is not installed; install it with: pip install "skcxr[skops]"
    """

    def __init__(self, library: str, extra: str) -> None:
        self.library = library
        self.extra = extra
        super().__init__(
            f'{library} is not installed; install it with: pip install "skcxr[{extra}]"'
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.library, self.extra)


class SkcxrWarning(UserWarning):
    """Base of every warning that skcxr gives.

    Examples
    --------
    >>> import warnings
    >>> from skcxr import SkcxrWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", SkcxrWarning)  # a warning of skcxr's stops here
    """


class PatientWarning(SkcxrWarning):
    """Patients are not known, so images of one patient may stand on both sides of a split.

    Examples
    --------
    >>> import warnings
    >>> from skcxr import CXRClassifier, PatientWarning, make_cxr_phantoms
    >>> drawn = make_cxr_phantoms(24, n_classes=2, image_size=32, random_state=0)
    >>> clf = CXRClassifier(early_stopping=True, max_epochs=1, random_state=0)
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", PatientWarning)
    ...     _ = clf.fit(drawn.data, drawn.target, groups=drawn.groups)  # known: no warning
    """


class ContaminationWarning(SkcxrWarning):
    """Images have trained the weights that a model starts from.

    The network has learnt them with their labels, so a score on them, or on other images of their
    patients, says how well it remembers.

    Parameters
    ----------
    weights : str
        The weights.
    positions : sequence of int
        The images, by their place in X.
    n_images : int
        Number of images in X.

    Attributes
    ----------
    weights : str
        The weights.
    positions : list of int
        The images, by their place in X.
    n_images : int
        Number of images in X.

    Examples
    --------
    >>> from skcxr import ContaminationWarning
    >>> warning = ContaminationWarning("cxr", [0, 4], 10)
    >>> warning.positions
    [0, 4]
    >>> str(warning).partition(":")[0]
    "2 of 10 images are among those that trained the weights 'cxr'"
    """

    def __init__(self, weights: str, positions: Sequence[int], n_images: int) -> None:
        self.weights, self.n_images = weights, n_images
        self.positions = list(positions)
        super().__init__(str(self))

    def __str__(self) -> str:
        n = len(self.positions)
        return (
            f"{n} of {self.n_images} images {'is' if n == 1 else 'are'} among those that trained "
            f"the weights {self.weights!r}: no test score on them, or on other images of their "
            "patients, is to be believed. The warning's `positions` lists them; test on images of "
            "other patients, or start from other weights"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.weights, self.positions, self.n_images)


class Unreadable(NamedTuple):
    """A file that could not be read."""

    position: int
    path: str
    reason: str


class ImageReadWarning(SkcxrWarning):
    """Some files could not be read; NaN stands where their pixels or predictions would.

    Parameters
    ----------
    failures : sequence of (position, path, reason)
        The files, by their place in X.
    n_images : int
        Number of files in X.

    Attributes
    ----------
    failures : list of Unreadable(position, path, reason)
        The files, by their place in X.
    n_images : int
        Number of files in X.

    Examples
    --------
    >>> from skcxr import ImageReadWarning
    >>> warning = ImageReadWarning([(3, "a.png", "the file is empty")], 10)
    >>> print(warning)
    1 of 10 images could not be read and is NaN: X[3] 'a.png': the file is empty
    >>> warning.failures[0].path
    'a.png'
    """

    def __init__(self, failures: Sequence[tuple[int, str, str]], n_images: int) -> None:
        self.failures = [Unreadable(*failure) for failure in failures]
        self.n_images = n_images
        super().__init__(str(self))

    def __str__(self) -> str:
        shown = "; ".join(f"X[{i}] {path!r}: {reason}" for i, path, reason in self.failures[:3])
        more = len(self.failures) - 3
        return (
            f"{len(self.failures)} of {self.n_images} images could not be read and "
            f"{'is' if len(self.failures) == 1 else 'are'} NaN: {shown}"
            + (f"; and {more} more, see the warning's `failures`" if more > 0 else "")
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ([tuple(failure) for failure in self.failures], self.n_images)
