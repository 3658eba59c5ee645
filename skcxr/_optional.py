"""Import a library of an extra, or say which extra installs it."""

from __future__ import annotations

import importlib
from types import ModuleType

from skcxr._exceptions import MissingDependencyError


def import_optional(library: str, extra: str) -> ModuleType:
    """Import `library`, which ``pip install "skcxr[extra]"`` installs.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(library, extra) from error
