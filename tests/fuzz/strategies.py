"""Strategies for what is given to the public entries instead of what they want."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

DTYPES = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(),
    npst.unsigned_integer_dtypes(),
    npst.floating_dtypes(),
    npst.complex_number_dtypes(),
    npst.byte_string_dtypes(max_len=3),
    npst.unicode_string_dtypes(max_len=3),
    npst.datetime64_dtypes(),
    npst.timedelta64_dtypes(),
)
SHAPES = npst.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=6)


def arrays() -> st.SearchStrategy[Any]:
    """Arrays of any type and shape, with NaN and infinity among the numbers."""
    return npst.arrays(DTYPES, SHAPES)


def scalars() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.complex_numbers(),
        st.text(max_size=8),
        st.binary(max_size=8),
        st.dates(),
        st.decimals(),
        st.just(np.float32("nan")),
        st.just(pd.NA),
        st.just(pd.NaT),
        st.just(...),
        st.just(object()),
        st.just(int),
        st.just(b"\xff"),
    )


def odd_arrays() -> st.SearchStrategy[Any]:
    """Arrays that are not what they seem: broadcast, masked, sparse, of objects, read-only."""
    plain = npst.arrays(st.sampled_from([np.uint8, np.float32, np.float64]), SHAPES)
    return st.one_of(
        st.sampled_from(
            [
                np.broadcast_to(np.uint8(7), (2, 40_000_000, 1_000)),
                np.broadcast_to(np.float32(0), (10**5, 2)),
                np.broadcast_to(np.array("a.png"), (0,)),
                np.zeros((3, 0, 4)),
                np.zeros((0, 4, 4)),
                np.empty((2, 2), object),
                np.array([None, "a.png"], object),
                np.array([{}, []], object),
                np.ma.masked_array(np.zeros((2, 4, 4)), True),
                np.float64(3),
                np.array(3),
                np.zeros((2, 4, 4), ">f8"),
                np.zeros((2, 4, 4), np.longdouble),
                np.zeros(3, [("a", "f4")]),
                np.zeros((2, 4, 4))[:, ::-1, ::2],
                scipy.sparse.eye(4).tocsr(),
                scipy.sparse.coo_array(np.eye(3)),
                pd.DataFrame({"a": [1, 2]}),
                pd.DataFrame(),
                pd.Series([], dtype=object),
                pd.Series(["a.png", None]),
                pd.DataFrame({"a": ["x.png"], "b": [3]}),
                pd.Series([1.0, np.nan]),
                pd.Index(["a.png"]),
                pd.Categorical(["a", "b"]),
                pd.DataFrame(np.zeros((2, 4)), columns=["a", "a", "b", "c"]),
                pd.Series(pd.array([1, None], "Int64")),
            ]
        ),
        plain.map(memoryview),
        plain.map(lambda a: a.tolist()),
        plain.map(bytearray),
        plain.map(lambda a: a.astype(object)),
    )


def nested() -> st.SearchStrategy[Any]:
    """Lists of lists, of unequal length, and of all that has a length."""
    return st.recursive(
        st.one_of(scalars(), st.just("a.png"), st.just(os.curdir)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.tuples(inner, inner),
            st.dictionaries(st.text(max_size=2), inner, max_size=2),
        ),
        max_leaves=8,
    )


def anything() -> st.SearchStrategy[Any]:
    return st.one_of(arrays(), odd_arrays(), nested(), scalars())


def labels(n: int) -> st.SearchStrategy[Any]:
    """Something of n entries that could be labels, or could not."""
    values = st.one_of(
        st.integers(-2, 3),
        st.floats(),
        st.sampled_from(["a", "b", "", "é"]),
        st.booleans(),
        scalars(),
    )
    return st.one_of(
        st.lists(values, min_size=n, max_size=n),
        npst.arrays(DTYPES, st.sampled_from([(n,), (n, 1), (n, 2), (n, 0)])),
        st.lists(values, min_size=n, max_size=n).map(lambda v: np.array(v, dtype=object)),
        st.lists(st.floats(), min_size=n, max_size=n).map(pd.Series),
        anything(),
    )
