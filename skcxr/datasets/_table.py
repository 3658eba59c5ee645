"""A table of images as a data set (being written)."""

from typing import Any


def load_cxr_table(*args: Any, **kwargs: Any) -> Any:
    """Load a table."""
    raise NotImplementedError
