"""Threads that are started once and in which torch computes single-threaded."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch


@lru_cache(maxsize=4)
def _workers(n_threads: int, pid: int) -> ThreadPoolExecutor:
    """Threads that each run torch single-threaded (`pid`: a fork has none of its parent's)."""
    started = threading.Barrier(n_threads + 1)

    def start() -> None:
        torch.get_num_threads()  # a thread's first look takes the process's value: look now
        torch.set_num_threads(1)
        started.wait()

    workers = ThreadPoolExecutor(n_threads, thread_name_prefix="skcxr", initializer=start)
    for _ in range(n_threads):
        workers.submit(int)
    started.wait()
    torch.set_num_threads(n_threads)  # new threads of the process inherit the last value set
    return workers


def map_in_threads(function: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
    """Map `function`, each call in one thread of as many as torch may use."""
    n_threads = torch.get_num_threads()
    if n_threads == 1:
        return list(map(function, *arguments))
    return list(_workers(n_threads, os.getpid()).map(function, *arguments))


def _without_threads() -> None:
    """Compute in one thread: OpenMP's others do not come along into a fork, which would wait."""
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_without_threads)
