"""Data frames of whatever files are called."""

from __future__ import annotations

from typing import Any


def frame_of(data: Any, **options: Any) -> Any:
    """:class:`pandas.DataFrame`, of objects where text holds what UTF-8 cannot say.

    File names may: Linux takes any bytes. Where pyarrow is installed, pandas keeps text in it, and
    it holds UTF-8 alone.
    """
    import pandas as pd

    try:
        return pd.DataFrame(data, **options)
    except UnicodeEncodeError:
        return pd.DataFrame(data, dtype=object, **options)
