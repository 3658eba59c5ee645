"""What libraries say of odd files, kept from the user while any thread reads one.

``warnings.catch_warnings`` would put back the filters of one thread over those of another, so one
filter for each library is added while any thread reads and is taken out by the last. Log records
are dropped only in threads that read.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

_lock = threading.Lock()
_readings: Counter[Any] = Counter()  # going on of each library, and of each in each thread


def _forget_readings() -> None:
    global _lock
    _lock = threading.Lock()
    _readings.clear()


if hasattr(os, "register_at_fork"):  # the threads that read do not exist in the child
    os.register_at_fork(after_in_child=_forget_readings)


def _not_here(record: logging.LogRecord) -> bool:
    return not _readings[record.thread]


@contextlib.contextmanager
def quiet(modules: str, *loggers: str) -> Iterator[None]:
    """Keep warnings of `modules`, a regular expression, and records of `loggers` from the user.

    Loggers are those whose names begin so, as far as there are any when the reading begins.
    """
    me = threading.get_ident()
    with _lock:
        _readings.update((modules, me))
        warnings.filterwarnings("ignore", module=modules)  # to the front, never twice
        item = warnings.filters[0]
        for logger in _loggers(loggers):
            logger.addFilter(_not_here)  # never twice
    try:
        yield
    finally:
        with _lock:
            _readings.subtract((modules, me))
            if not _readings[me]:
                del _readings[me]
            if not _readings[modules]:
                for logger in _loggers(loggers):
                    logger.removeFilter(_not_here)
                with contextlib.suppress(ValueError):
                    cast("list[Any]", warnings.filters).remove(item)


def _loggers(beginnings: tuple[str, ...]) -> list[logging.Logger]:
    if not beginnings:
        return []
    names = [name for name in list(logging.root.manager.loggerDict) if name.startswith(beginnings)]
    return [logging.getLogger(name) for name in names]
