"""What one process does not get through: long predictions in shards, and fits by several processes.

    paths -> shards -> one table for each shard in a folder, here or on a Dask cluster

A shard is a run of paths. Its table's name holds a hash of these paths and of the model, so what
is there is done, of whichever run, and what is not there is to do: a run that was killed goes on by
being called again. Workers read files and write tables by themselves; what goes over the network is
paths and lists of failures.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import importlib.util
import io
import itertools
import json
import os
import re
import secrets
import warnings
import zipfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    StrOptions,
    validate_params,
)

from skcxr._exceptions import (
    ImageReadError,
    ImageReadWarning,
    InputError,
    PredictionError,
    Unreadable,
)
from skcxr._optional import import_optional
from skcxr._parallel import data_parallel
from skcxr._patients import as_paths
from skcxr.images import read_image
from skcxr.persistence import load_model, save_model
from skcxr.training import one_at_a_time

__all__ = ["PredictedFiles", "data_parallel", "predict"]

_MODEL = "_model"  # what begins with "_" or "." is not read as a part of the table
_FAILURES = "_failures.csv"
_TABLE = re.compile(r"part-\d{6}-[0-9a-f]{16}\.(parquet|csv)")
_DRAFT = re.compile(r"\.part-.*\.draft")
_MOST_FAILED = 10  # shards in a row after which the fault is taken to be that of all of them
_AHEAD = 4  # shards that wait at the scheduler for each thread of the cluster


@dataclass(frozen=True)
class PredictedFiles:
    """What :func:`predict` has written.

    Parameters
    ----------
    folder : str
        The folder.
    tables : list of str
        The tables in it, in the order of the paths.
    n_files : int
        Number of files that were predicted, those that cannot be read included.
    failures : list of Unreadable(position, path, reason)
        The files that cannot be read, by their place in the paths.

    Examples
    --------
    >>> from skcxr.distributed import PredictedFiles
    >>> PredictedFiles("out", [], 0, []).failures
    []
    """

    folder: str
    tables: list[str]
    n_files: int
    failures: list[Unreadable]

    def to_frame(self) -> Any:
        """Read all tables, in the order of the paths.

        Returns
        -------
        pandas.DataFrame of shape (n_files, 2 + n_classes)
            Columns "path", "probability of <class>" for each class or finding, and "error", which
            is "" or says why a file cannot be read.
        """
        import pandas as pd

        return pd.concat(map(_read, self.tables), ignore_index=True)


class _Shard(NamedTuple):
    """A run of paths and where their table goes."""

    number: int
    start: int
    paths: list[str]
    table: str


@validate_params(
    {
        "model": [str, os.PathLike, HasMethods("predict_proba")],
        "paths": "no_validation",
        "out": [str, os.PathLike],
        "shard_size": [Interval(Integral, 1, None, closed="left")],
        "table_format": [StrOptions({"auto", "parquet", "csv"})],
        "client": [None, HasMethods(["submit", "cancel", "ncores"])],
        "verbose": ["verbose"],
    },
    prefer_skip_nested_validation=True,
)
def predict(
    model: Any,
    paths: Any,
    out: str | os.PathLike[str],
    *,
    shard_size: int = 1000,
    table_format: str = "auto",
    client: Any = None,
    verbose: int = 0,
) -> PredictedFiles:
    """Predict many files into a folder of tables, here or on a Dask cluster.

    Called again after a run that was killed, it predicts what is missing.

    Parameters
    ----------
    model : CXRClassifier, scikit-learn estimator, str or os.PathLike
        A fitted model that :func:`skcxr.save_model` can save, or the folder of a saved one.
    paths : list, array, Series or one column of str or PathLike, of shape (n,)
        The files. Every worker must see them, and `out`, under the same names.
    out : str or os.PathLike
        The folder, made if need be. It holds one table for each shard, the model as
        ``_model`` and the list of files that cannot be read as ``_failures.csv``.
    shard_size : int, default=1000
        Files in a shard: what is lost with a worker, and what one task of the cluster is.
    table_format : {"auto", "parquet", "csv"}, default="auto"
        "auto" takes what `out` has already, else Parquet where pyarrow is
        installed, else CSV. Both keep every bit of the probabilities.
    client : distributed.Client or None, default=None
        Client of the cluster. None predicts in this process, one shard after the other.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    PredictedFiles
        The tables, and the files that cannot be read.

    Raises
    ------
    InputError
        `paths` are no paths or none; `model` cannot be saved; or `out` is a file, or holds tables
        of other paths, of another model or of another `shard_size`.
    ModelFileError
        `model` is a folder from which no model can be loaded.
    NotFittedError
        `model` is not fitted.
    PredictionError
        Shards could not be predicted or written. The others are there; the next call goes on.
    MissingDependencyError
        pyarrow is asked for and not installed, or `client` is given and distributed is not.

    See Also
    --------
    skcxr.load_model : What a worker does first.

    Notes
    -----
    A file that cannot be read has NaN for its probabilities and the reason as its "error"; if the
    fault may have been the network's, predict the paths of ``failures`` again, into another folder.

    Files are told apart by their names: one whose content has changed since its shard was written
    is not predicted again.

    The probabilities of a shard are those of ``predict_proba`` of its paths, to the bit on the same
    kind of machine. Those of one long ``predict_proba``, whose batches are others, differ from them
    by the rounding of float32.

    Examples
    --------
    >>> import os, tempfile
    >>> from skcxr import CXRClassifier, make_cxr_phantoms
    >>> from skcxr.distributed import predict
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     drawn = make_cxr_phantoms(
    ...         8, n_classes=2, image_size=32, random_state=0, save_to=os.path.join(folder, "in")
    ...     )
    ...     clf = CXRClassifier(image_size=32, max_epochs=1, random_state=0)
    ...     clf = clf.fit(drawn.data, drawn.target)
    ...     done = predict(clf, drawn.data, os.path.join(folder, "out"), shard_size=3)
    ...     print(len(done.tables), done.n_files, done.failures)
    ...     frame = done.to_frame()
    3 8 []
    >>> frame.shape
    (8, 4)
    """
    names = as_paths(paths)
    if names is None:
        raise InputError("paths holds no paths; pass a list, array or Series of file names")
    folder = os.path.abspath(os.fspath(out))
    if isinstance(model, str | os.PathLike):
        model = load_model(model)
    with suppress(FileExistsError):
        os.makedirs(folder, exist_ok=True)
    if not os.path.isdir(folder):
        raise InputError(f"out={os.fspath(out)!r} is a file; give the name of a folder")
    there = _tables_in(folder)
    kind = _settle_format(table_format, there)
    mark = _keep_model(model, folder, there)
    shards = list(_cut(names, shard_size, mark, folder, kind))
    _check_tables(there, shards, folder)

    failures: dict[int, list[Unreadable]] = {}
    missing = []
    written = set(there)
    for shard in shards:
        found = _failures_in(shard) if os.path.basename(shard.table) in written else None
        if found is None:
            missing.append(shard)
        else:
            failures[shard.number] = found

    run = _here(missing, folder, mark) if client is None else _there(missing, folder, mark, client)
    faults: dict[int, BaseException] = {}
    in_a_row = 0
    for shard, result in _shown(run, len(missing)) if verbose else run:
        if isinstance(result, BaseException):
            faults[shard.number] = result
            in_a_row += 1
            if in_a_row == _MOST_FAILED:
                run.close()
                break
        else:
            failures[shard.number] = result
            in_a_row = 0
    if faults:
        number, fault = min(faults.items())
        shard = shards[number]
        raise PredictionError(
            f"{len(faults)} of {len(shards)} shards failed, first shard {number} (paths "
            f"{shard.start} to {shard.start + len(shard.paths) - 1}): {type(fault).__name__}: "
            f"{fault}; {len(failures)} are in {folder!r}, and the next call goes on"
        ) from fault
    _check_tables(_tables_in(folder), shards, folder)  # of another run at the same time
    unread = [failure for number in sorted(failures) for failure in failures[number]]
    _finish(folder, unread)
    return PredictedFiles(folder, [shard.table for shard in shards], len(names), unread)


# --------------------------------------------------------------------------------------------
# the folder
# --------------------------------------------------------------------------------------------


def _tables_in(folder: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if _TABLE.fullmatch(name))


def _settle_format(wanted: str, there: list[str]) -> str:
    if wanted == "auto":
        if there:
            return there[0].rpartition(".")[2]
        return "parquet" if importlib.util.find_spec("pyarrow") else "csv"
    if wanted == "parquet":
        import_optional("pyarrow", "dask")
    return wanted


def _keep_model(model: Any, folder: str, there: list[str]) -> str:
    """Save the model for the workers; a hash of all that its answers depend on."""
    place = os.path.join(folder, _MODEL)
    draft = os.path.join(folder, f".{_MODEL}-{secrets.token_hex(8)}")
    try:
        save_model(model, draft)
        mark = _mark(draft)
        if os.path.isdir(place):
            with suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):
                if _mark(place) == mark:
                    return mark
            if there:
                raise InputError(
                    f"out={folder!r} holds tables of another model, or of other versions of "
                    "the libraries; give another folder"
                )
        save_model(model, place)
    finally:
        with suppress(OSError):
            for name in os.listdir(draft):
                os.unlink(os.path.join(draft, name))
            os.rmdir(draft)
    return mark


def _mark(folder: str) -> str:
    """Hash of a saved model, the same for models that are the same."""
    digest = hashlib.sha256()
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            content = file.read()
        if name == "config.json":
            config = json.loads(content)
            config.pop("estimator", None)  # the hash of the next one
            content = json.dumps(config, sort_keys=True).encode()
        elif name.endswith(".skops"):
            content = _without_addresses(content)
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _without_addresses(content: bytes) -> bytes:
    """What a skops file says, without the addresses in memory that it names things by."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read("schema.json"))
        numbers: dict[Any, int] = {}

        def clean(node: Any) -> Any:
            if isinstance(node, list):
                return [clean(item) for item in node]
            if not isinstance(node, dict):
                return node
            node = {key: clean(value) for key, value in node.items()}
            if "__id__" in node:
                node["__id__"] = numbers.setdefault(node["__id__"], len(numbers))
            if "file" in node:
                node["file"] = hashlib.sha256(archive.read(node["file"])).hexdigest()
            return node

        return json.dumps(clean(schema), sort_keys=True).encode()


def _cut(names: list[str], size: int, mark: str, folder: str, kind: str) -> Iterator[_Shard]:
    for number, start in enumerate(range(0, len(names), size)):
        paths = names[start : start + size]
        digest = hashlib.sha256(mark.encode())
        for path in paths:
            digest.update(path.encode("utf-8", "surrogatepass") + b"\0")
        name = f"part-{number:06}-{digest.hexdigest()[:16]}.{kind}"
        yield _Shard(number, start, paths, os.path.join(folder, name))


def _check_tables(there: list[str], shards: Sequence[_Shard], folder: str) -> None:
    strange = sorted(set(there) - {os.path.basename(shard.table) for shard in shards})
    if strange:
        raise InputError(
            f"out={folder!r} holds {len(strange)} tables that are not of these paths in this "
            f"order with this shard_size and table_format, such as {strange[0]!r}; give another "
            "folder"
        )


def _finish(folder: str, failures: list[Unreadable]) -> None:
    """List the failures, and remove what killed workers have left."""
    import pandas as pd

    rows = [(position, _as_text(path), _as_text(why)) for position, path, why in failures]
    frame = pd.DataFrame(rows, columns=list(Unreadable._fields))
    _put(_as_csv(frame), os.path.join(folder, _FAILURES))
    for name in os.listdir(folder):
        if _DRAFT.fullmatch(name):
            with suppress(OSError):
                os.unlink(os.path.join(folder, name))


def _put(content: bytes, file: str) -> None:
    """Write a file whole or not at all; another worker may do the same at the same time."""
    folder, name = os.path.split(file)
    draft = os.path.join(folder, f".{name}.{secrets.token_hex(8)}.draft")
    try:
        with open(draft, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, file)
    except FileNotFoundError:
        if not os.path.exists(file):  # where it does, another run is done and has cleared up
            raise
    finally:
        with suppress(OSError):  # replaced: gone
            os.unlink(draft)


def _as_csv(frame: Any) -> bytes:
    # text in quotes, or a carriage return in a name would end its line
    text: str = frame.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
    return text.encode()


def _read(table: str, columns: list[str] | None = None) -> Any:
    import pandas as pd

    if table.endswith(".parquet"):
        return pd.read_parquet(table, columns=columns)
    frame = pd.read_csv(table, usecols=columns, dtype=str, keep_default_na=False)
    for name in frame.columns:  # float() keeps every bit, which pandas' reader promises not
        if name not in ("path", "error"):
            frame[name] = [float(text or "nan") for text in frame[name]]
    return frame


def _failures_in(shard: _Shard) -> list[Unreadable] | None:
    """The failures of a shard that is done, None where its table is damaged."""
    try:
        errors = _read(shard.table, ["error"])["error"]
    except Exception:  # whatever a library says of a file that is none
        return None
    if len(errors) != len(shard.paths):
        return None
    return [
        Unreadable(shard.start + k, shard.paths[k], reason)
        for k, reason in enumerate(errors)
        if reason
    ]


# --------------------------------------------------------------------------------------------
# a shard
# --------------------------------------------------------------------------------------------


def _here(
    shards: Sequence[_Shard], folder: str, mark: str
) -> Generator[tuple[_Shard, Any], None, None]:
    """Predict shards one after the other: each with its failures, or with what went wrong."""
    for shard in shards:
        try:
            yield shard, _predict_shard(shard, folder, mark)
        except Exception as error:
            yield shard, error


def _there(
    shards: Sequence[_Shard], folder: str, mark: str, client: Any
) -> Generator[tuple[_Shard, Any], None, None]:
    """The same on a cluster, in the order in which shards are done."""
    distributed = import_optional("distributed", "dask")
    waiting = iter(shards)
    running: dict[str, tuple[_Shard, Any]] = {}
    results = distributed.as_completed(loop=client.loop)
    try:
        while True:
            # a cluster may grow while it works
            free = _AHEAD * max(1, sum(client.ncores().values())) - len(running)
            for shard in itertools.islice(waiting, max(0, free)):
                key = f"skcxr-{shard.number}-{secrets.token_hex(8)}"
                future = client.submit(_predict_shard, shard, folder, mark, key=key, pure=False)
                running[key] = shard, future
                results.add(future)
            if not running:
                return
            future = next(results)
            shard, _ = running.pop(future.key)
            try:
                result = future.result()
            except Exception as error:
                result = error
            yield shard, result
    finally:
        client.cancel([future for _, future in running.values()])


def _predict_shard(shard: _Shard, folder: str, mark: str) -> list[Unreadable]:
    """Predict the files of a shard and write its table; its failures."""
    import pandas as pd

    model = _loaded(os.path.join(folder, _MODEL), mark, os.getpid())
    proba, reasons = _predict_files(model, shard.paths)
    findings = getattr(model, "findings_", None)
    labels = model.classes_ if findings is None else findings
    if proba.shape != (len(shard.paths), len(labels)):
        raise InputError(
            f"predict_proba of {type(model).__name__} gives an array of shape {proba.shape} for "
            f"{len(shard.paths)} files and {len(labels)} classes or findings; a table needs one "
            "column for each"
        )
    frame = pd.DataFrame({"path": [_as_text(path) for path in shard.paths]})
    for k, name in enumerate(labels):
        frame[f"probability of {name}"] = proba[:, k]
    frame["error"] = [_as_text(reasons.get(k, "")) for k in range(len(shard.paths))]
    if shard.table.endswith(".parquet"):
        content = io.BytesIO()
        frame.to_parquet(content, index=False)
        _put(content.getvalue(), shard.table)
    else:
        _put(_as_csv(frame), shard.table)
    return [Unreadable(shard.start + k, shard.paths[k], reasons[k]) for k in sorted(reasons)]


@functools.lru_cache(maxsize=1)
def _loaded(place: str, mark: str, pid: int) -> Any:
    """The model, once for each process; `mark` tells it from another at the same place."""
    model = load_model(place)
    if _mark(place) != mark:
        raise InputError(
            f"another run has put another model into {place!r}; give it its own folder"
        )
    if "on_error" in model.get_params(deep=False):
        model.set_params(on_error="nan")
    return model


def _predict_files(model: Any, paths: list[str]) -> tuple[np.ndarray[Any, Any], dict[int, str]]:
    """Probabilities, NaN where a file cannot be read, and why, by place."""
    reasons: dict[int, str] = {}
    # warnings are the process's, so no other thread may catch them meanwhile
    with one_at_a_time(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            proba = np.asarray(model.predict_proba(paths), dtype=np.float64)
        except ImageReadError:  # of an estimator that cannot do without an image
            reasons = _unreadable(paths)
            if not reasons:
                raise
            proba = _predict_readable(model, paths, reasons)
    for warning in caught:
        if isinstance(warning.message, ImageReadWarning):
            reasons |= {failure.position: failure.reason for failure in warning.message.failures}
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return proba, reasons


def _predict_readable(model: Any, paths: list[str], reasons: dict[int, str]) -> Any:
    labels = getattr(model, "findings_", model.classes_)
    proba = np.full((len(paths), len(labels)), np.nan)
    readable = [k for k in range(len(paths)) if k not in reasons]
    if readable:
        proba[readable] = model.predict_proba([paths[k] for k in readable])
    return proba


def _unreadable(paths: list[str]) -> dict[int, str]:
    reasons = {}
    for position, path in enumerate(paths):
        try:
            read_image(path)
        except ImageReadError as error:
            reasons[position] = error.reason
    return reasons


def _as_text(path: str) -> str:
    """A path as a table can hold it."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _shown(run: Iterator[Any], total: int) -> Iterator[Any]:
    """The shards, with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import track

    return iter(track(run, "predicting", total=total, console=Console(stderr=True)))
