"""The exceptions and warnings of skcxr.

Every class is also the builtin that fits, so ``except OSError`` or
``except ValueError`` catch it too::

    Exception
    └── SkcxrError
        ├── ImageReadError            (OSError)      a file cannot be read as an image
        ├── InputError                (ValueError)   X, y, weights or groups cannot be used
        ├── DatasetError              (ValueError)   a folder or table is no data set
        ├── WeightsError              (ValueError)   weights cannot be found or do not fit
        ├── TrainingError             (RuntimeError) a loss is no number any more
        └── MissingDependencyError    (ImportError)  an extra is not installed

    UserWarning
    └── SkcxrWarning
        └── PatientWarning            patients are unknown where they matter

Parameters of a wrong type or range raise scikit-learn's ``InvalidParameterError`` (a
``ValueError`` and ``TypeError``), an estimator used before ``fit`` its ``NotFittedError``.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = [
    "DatasetError",
    "ImageReadError",
    "InputError",
    "MissingDependencyError",
    "PatientWarning",
    "SkcxrError",
    "SkcxrWarning",
    "TrainingError",
    "WeightsError",
]


class SkcxrError(Exception):
    """Base of every exception that skcxr defines."""


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
    """X, y, sample_weight or groups cannot be used as given."""


class DatasetError(SkcxrError, ValueError):
    """A folder, table or archive does not hold a data set that can be loaded."""


class WeightsError(SkcxrError, ValueError):
    """Weights cannot be found, read or fitted onto a network."""


class TrainingError(SkcxrError, RuntimeError):
    """A fit cannot go on, because its loss is no number any more."""


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
    """Base of every warning that skcxr gives."""


class PatientWarning(SkcxrWarning):
    """Patients are not known, so images of one patient may stand on both sides of a split."""
