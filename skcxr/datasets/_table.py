"""A table of images, one row each, as a data set."""

from __future__ import annotations

import bz2
import csv
import difflib
import gzip
import io
import lzma
import os
import re
import stat
import warnings
import zipfile
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from skcxr._exceptions import DatasetError, PatientWarning
from skcxr._frames import frame_of
from skcxr._patients import patients_from_names
from skcxr.datasets._folder import (
    SPLIT_NAMES,
    Skipped,
    describe,
    first_skipped,
    folder_name,
    listed,
    shown,
)
from skcxr.images import sniff

__all__ = ["load_cxr_table"]

Array = np.ndarray[Any, Any]

_COLUMNS = ("path", "target", "group", "source", "split")

# of what a table may have, so that it fits in memory
MOST_BYTES = 1 << 27
MOST_PACKED_BYTES = 1 << 25
MOST_CELLS = 10_000_000
MOST_COLUMNS = 10_000
LONGEST_WORD = 1000  # of labels, patients and collections: an array has its longest everywhere


def load_cxr_table(
    table: Any,
    *,
    path: str = "path",
    target: str | Sequence[str] = "target",
    groups: str | None = None,
    source: str | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Bunch:
    """Load a table that has a row for each image.

    Rows whose file is missing or no image, and rows without a label, are left out and reported.
    Images are told by their first bytes, not by their names; their pixels are not decoded here.

    Parameters
    ----------
    table : str, os.PathLike or pandas.DataFrame
        A CSV file in UTF-8 (``.tsv`` and ``.tab``: separated by tabs), also one that is compressed
        (``.gz``, ``.bz2``, ``.xz``, ``.zip``), of at most 10 million cells; or a data frame. An
        address (``https://...``) is no file.
    path : str, default="path"
        Column of the image files.
    target : str or sequence of str, default="target"
        Column of the labels, of any kind; or the columns of findings, which hold 0, 1 or nothing
        for "not labelled". Labels in a CSV file are numbers where all of them are ("01" is
        none); only an empty cell is no label there, so "None" and "NA" are classes.
    groups : str or None, default=None
        Column of the patients. None reads them from the file names, as
        :func:`skcxr.load_cxr_folder` does. An image whose cell is empty is a patient of its own.
    source : str or None, default=None
        Column of the collections or hospitals. None, and an empty cell, give the empty string.
    root : str, os.PathLike or None, default=None
        Folder that relative paths start from. None is the folder of the CSV file, and the
        current one for a data frame. A path written with backslashes is found too.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        data : list of str of length n_images
            The paths, in the order of the table.
        target : ndarray of shape (n_images,) or (n_images, n_findings)
            The labels; findings as float64 of 0, 1 and NaN.
        target_names : list
            The classes, sorted, or the names of the findings.
        groups : ndarray of shape (n_images,), dtype str
            The patient of each image.
        source : ndarray of shape (n_images,), dtype str
            The collection that each image comes from.
        split : ndarray of shape (n_images,), dtype str
            ``"train"``, ``"val"`` or ``"test"`` where the table has a column "split" of such
            words, else the empty string.
        skipped : list of Skipped(path, reason)
            Every row that was left out, and why; rows are counted from 1, the header apart.
        frame : pandas.DataFrame
            The columns path, target (or those of the findings), group, source and split, then
            all others of the table as they are; one of these names there, or one that comes
            twice, gets the ending "_table".
        DESCR : str
            What was found, in a few sentences.

    Raises
    ------
    DatasetError
        The table cannot be read, lacks a column, has one file under two labels or patients, has
        no image left, or a finding is not 0, 1 or empty.

    Warns
    -----
    PatientWarning
        If the patient of some images is unknown.

    Examples
    --------
    >>> import os, tempfile
    >>> import pandas as pd
    >>> from skcxr import load_cxr_table, make_cxr_phantoms
    >>> root = tempfile.mkdtemp()
    >>> phantoms = make_cxr_phantoms(
    ...     4, n_classes=2, image_size=32, random_state=0, save_to=os.path.join(root, "images")
    ... )
    >>> table = pd.DataFrame(
    ...     {"file": phantoms.data, "finding": phantoms.target, "who": phantoms.groups, "age": 50}
    ... )
    >>> bunch = load_cxr_table(table, path="file", target="finding", groups="who")
    >>> len(bunch.data), bunch.frame["age"].tolist()
    (4, [50, 50, 50, 50])
    """
    import pandas as pd

    several = isinstance(target, list | tuple | np.ndarray | pd.Index | pd.Series)
    if not isinstance(target, str) and not (several and getattr(target, "ndim", 1) == 1):
        raise DatasetError(f"target={shown(target)} is neither a column nor a list of columns")
    findings = None if isinstance(target, str) else list(target)
    columns = [path, *([target] if isinstance(target, str) else findings or [])]
    columns += [name for name in (groups, source) if name is not None]
    given, where, folder = _read(table, [path, groups, source], None if findings else target)
    if root is not None:
        folder = folder_name(root)
    for name in columns:
        _check_column(given, name, where)
    if findings is not None and not findings:
        raise DatasetError("target is an empty list; name at least one column of findings")

    for name in findings or ():
        if list(findings or ()).count(name) > 1:
            raise DatasetError(f"target names the finding {name!r} twice; name it once")
        if name in _COLUMNS:
            raise DatasetError(
                f"the finding {name!r} has the name of a column of `frame`, which has {_COLUMNS}; "
                "rename it"
            )

    labels: Any = _findings(given, findings, where) if findings else given[target].tolist()
    people = _text(given, groups, where) if groups else None
    skipped: list[Skipped] = []
    seen: dict[str, int] = {}
    kept, paths = [], []
    for row, (cell, label) in enumerate(zip(given[path].tolist(), labels, strict=True)):
        if (pd.api.types.is_scalar(cell) and pd.isna(cell)) or not str(cell).strip():
            skipped.append(Skipped("", f"row {row + 1}: the cell of {path!r} is empty"))
            continue
        file = _find(folder, str(cell))
        if not findings and not pd.api.types.is_scalar(label):
            raise DatasetError(
                f"column {target!r} of {where} holds {shown(label)} in row {row + 1}; a label is a "
                "str or a number, and of several findings each has a column"
            )
        if isinstance(label, str) and len(label) > LONGEST_WORD:
            raise DatasetError(
                f"column {target!r} of {where} holds a label of {len(label):,} characters in row "
                f"{row + 1}; {LONGEST_WORD} are allowed"
            )
        if np.isnan(label).all() if findings else pd.isna(label) or not str(label).strip():
            skipped.append(Skipped(file, f"row {row + 1}: no label"))
        elif reason := sniff(file):
            skipped.append(Skipped(file, f"row {row + 1}: {reason}"))
        elif (same := os.path.normpath(file)) in seen:
            first = seen[same]
            if not np.array_equal(label, labels[first], equal_nan=findings is not None):
                raise DatasetError(
                    f"{file!r} has two labels, in row {first + 1} and in row {row + 1} of {where}: "
                    f"{shown(str(labels[first]))} and {shown(str(label))}"
                )
            if people is not None and people[row] != people[first]:
                raise DatasetError(
                    f"{file!r} has two patients, in row {first + 1} and in row {row + 1} of "
                    f"{where}: {str(people[first])!r} and {str(people[row])!r}"
                )
            skipped.append(Skipped(file, f"row {row + 1}: the same file as in row {first + 1}"))
        else:
            seen[same] = row
            kept.append(row)
            paths.append(file)
    if not kept:
        raise DatasetError(f"{where} has no image that can be used{first_skipped(skipped)}")

    used = given.iloc[kept].reset_index(drop=True)
    values = labels[kept] if findings else np.array(used[target].tolist())
    if not findings and not isinstance(table, pd.DataFrame):
        values = _numbers(values)
    patients, n_unknown = _patients(used, groups, paths, where)
    sources = _text(used, source, where) if source else np.full(len(paths), "", dtype=str)
    found = _split(given)
    split = np.full(len(paths), "", dtype=str) if found is None else found[kept]
    if n_unknown:
        warnings.warn(
            f"{n_unknown} of {len(paths)} images have no patient that is known; each is taken as a "
            "patient of its own, so images of one person may fall on both sides of a split. If "
            "the table has the patients, name their column: groups=",
            PatientWarning,
            stacklevel=2,
        )
    series: dict[Any, Any] = {"path": paths}
    series.update(zip(findings, values.T, strict=True) if findings else [("target", values)])
    series.update(group=patients, source=sources, split=split)
    roles = {*columns, None if found is None else "split"}
    taken = {*series, *used.columns}
    for k, name in enumerate(used.columns):
        if name not in roles:
            free = name
            while free in series or (free != name and free in taken):
                free = f"{free}_table"
            series[free] = used.iloc[:, k]
    try:
        names = findings or sorted(set(values.tolist()))
    except TypeError as error:
        raise DatasetError(
            f"column {target!r} of {where} holds labels of kinds that have no order ({error}); "
            "make them all str"
        ) from error
    frame = frame_of(series)  # at once: pandas warns of many columns added one by one
    return Bunch(
        data=paths,
        target=values,
        target_names=names,
        groups=patients,
        source=sources,
        split=split,
        skipped=skipped,
        frame=frame,
        DESCR=describe(where, frame, n_unknown, skipped, findings),
    )


def _read(table: Any, as_text: list[str | None], label: Any) -> tuple[Any, str, str]:
    """The table, what to call it, and the folder that it lies in.

    The columns `as_text` are not guessed at: the zeros of a patient's 00000013 stay. Nor is
    `label`, where "None" and "NA" are words like others.
    """
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        return table, "the table", os.curdir
    if not isinstance(table, str | os.PathLike):
        raise DatasetError(f"table is {type(table).__name__}; give a CSV file or a DataFrame")
    name = os.fsdecode(table)
    where = f"the table {name!r}"
    tabs = name.lower().endswith((".tsv", ".tab"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows of unequal length
            content = _content(name, where)
            _check_sizes(content, "\t" if tabs else ",", where)
            read: Any = partial(
                pd.read_csv, sep="\t" if tabs else ",", encoding="utf-8-sig", index_col=False,
                low_memory=False,
            )  # fmt: skip
            given = read(
                io.BytesIO(content),
                dtype={column: str for column in as_text if column is not None},
            )
            if list(given.columns).count(label) == 1:
                labels = read(io.BytesIO(content), usecols=[label], dtype=str, na_filter=False)
                given[label] = labels[label]
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetError(f"{where} cannot be opened: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{where} is no text in UTF-8; save it as CSV in UTF-8") from error
    except Exception as error:  # pandas' own, and those of gzip, zlib, zip and others
        said = shown(str(error))[1:-1]
        raise DatasetError(f"{where} is no table that can be read: {said}") from error
    if len(given.columns) == 1 and ";" in str(given.columns[0]):
        raise DatasetError(f"{where} is separated by semicolons; save it with commas")
    return given, where, os.path.dirname(name) or os.curdir


def _content(name: str, where: str) -> bytes:
    """The bytes of a CSV file, unpacked; pandas would open addresses and unpack without end."""

    def at_once(path: str, flags: int) -> int:  # not when a writer of the pipe comes
        return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))

    packing = os.path.splitext(name)[1].lower()
    packed = packing in (".gz", ".bz2", ".xz", ".zip")
    most = MOST_PACKED_BYTES if packed else MOST_BYTES
    with open(name, "rb", opener=at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DatasetError(f"{where} is no regular file but a pipe, socket or device")
        content = file.read(most + 1)
    if len(content) > most:
        raise DatasetError(f"{where} has more than the {most:,} bytes that are allowed")
    packed_stream = io.BytesIO(content)
    if packing in (".gz", ".bz2"):
        with (gzip if packing == ".gz" else bz2).open(packed_stream) as stream:
            content = stream.read(MOST_BYTES + 1)
    elif packing == ".xz":
        unpacker = lzma.LZMADecompressor(memlimit=1 << 28)
        content = unpacker.decompress(content, MOST_BYTES + 1)
        if not unpacker.eof and len(content) <= MOST_BYTES:
            raise EOFError("the file is cut short")
    elif packing == ".zip":
        with zipfile.ZipFile(packed_stream) as archive:
            if len(archive.namelist()) != 1:
                raise DatasetError(f"{where} has not one file in it")
            with archive.open(archive.namelist()[0]) as member:
                content = member.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise DatasetError(f"{where} has more than {MOST_BYTES:,} bytes when it is unpacked")
    return content


def _check_sizes(content: bytes, separator: str, where: str) -> None:
    """Refuse what would not fit in memory as a data frame."""
    n_cells = sum(content.count(mark) for mark in (b"\n", b"\r", separator.encode()))
    if n_cells > MOST_CELLS:
        raise DatasetError(
            f"{where} has {n_cells:,} cells, more than the {MOST_CELLS:,} that are allowed; leave "
            "out columns, or pass a DataFrame"
        )
    start = content[: 1 << 20]
    lines = io.StringIO(start.decode("utf-8-sig", "replace"), newline="")
    header = next(csv.reader(lines, delimiter=separator), [])
    if len(header) > MOST_COLUMNS or (len(start) < len(content) and not lines.read(1)):
        raise DatasetError(
            f"{where} has more than {MOST_COLUMNS:,} columns, or no end of the first"
        )


def _check_column(given: Any, name: str, where: str) -> None:
    names = list(given.columns)
    try:
        known = name in given.columns
    except (TypeError, ValueError):  # what has no hash
        known = False
    if not known:
        words = [word for word in map(str, names[:1000]) if len(word) < 100]
        close = difflib.get_close_matches(str(name)[:100], words, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else "."
        raise DatasetError(
            f"{where} has no column {shown(name)}{meant} Its columns: {listed(names, 100)}"
        )
    if names.count(name) > 1:
        raise DatasetError(f"{where} has {names.count(name)} columns of the name {name!r}")


def _numbers(labels: Array) -> Array:
    """Labels of a CSV file, all text: bools, ints or floats where every one is so written."""
    words = [str(label).strip() for label in labels]
    if all(word.lower() in ("true", "false") for word in words):
        return np.array([word.lower() == "true" for word in words])
    for kind, pattern in ((int, r"-?(0|[1-9]\d{0,17})"), (float, r"-?(0|[1-9]\d*)(\.\d+)?")):
        if all(re.fullmatch(pattern, word, re.ASCII) for word in words):
            return np.array([kind(word) for word in words])
    return np.array(words, dtype=str)


def _findings(given: Any, names: list[str], where: str) -> Array:
    """Columns of 0, 1 and NaN as float64."""
    import pandas as pd

    values = np.empty((len(given), len(names)))
    for k, name in enumerate(names):
        column = given[name]
        numbers = pd.to_numeric(column.astype(object).where(column.notna(), np.nan), "coerce")
        values[:, k] = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
        blank = column.isna()
        if not pd.api.types.is_numeric_dtype(column):
            blank |= column.astype(str).str.strip() == ""
        wrong = np.flatnonzero(~blank.to_numpy() & ~np.isin(values[:, k], (0.0, 1.0)))
        if len(wrong):
            raise DatasetError(
                f"column {name!r} of {where} holds {shown(str(column.iloc[wrong[0]]))} in row "
                f"{wrong[0] + 1}; a finding is 0, 1 or empty"
            )
    return values


def _find(folder: str, cell: str) -> str:
    file = cell if os.path.isabs(cell) else os.path.join(folder, cell)
    if "\\" in cell and not os.path.exists(file):
        slashed = os.path.join(folder, cell.replace("\\", "/"))
        return slashed if os.path.exists(slashed) else file
    return file


def stripped(column: Any) -> Any:
    """A column as text without blanks around it, empty where nothing is."""
    return column.astype(object).where(column.notna(), "").map(str).str.strip()


def _text(given: Any, name: str, where: str) -> Array:
    column = given[name]
    words = stripped(column)  # patients of blank cells are not one patient
    if len(words) and (longest := words.str.len().max()) > LONGEST_WORD:
        raise DatasetError(
            f"column {name!r} of {where} has a cell of {longest:,} characters; {LONGEST_WORD} are "
            "allowed"
        )
    return words.to_numpy(dtype=str)


def _patients(used: Any, groups: str | None, paths: list[str], where: str) -> tuple[Array, int]:
    if groups is None:
        return patients_from_names(paths)
    named = _text(used, groups, where)
    unknown = named == ""
    filled = [
        path if empty else name for name, path, empty in zip(named, paths, unknown, strict=True)
    ]
    return np.array(filled, dtype=str), int(unknown.sum())


def _split(given: Any) -> Array | None:
    """The column "split", if it holds words of a split and nothing else."""
    if list(given.columns).count("split") != 1:
        return None
    if (given["split"].astype(str).str.len() > LONGEST_WORD).any():
        return None
    words = [word.lower() for word in _text(given, "split", "the table")]
    if not all(word in SPLIT_NAMES or word == "" for word in words):
        return None
    return np.array([SPLIT_NAMES.get(word, "") for word in words], dtype=str)
