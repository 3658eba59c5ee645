"""Prediction of many files in shards, here and on a Dask cluster of this machine.

`skcxr.distributed.predict` with one thread, and on a LocalCluster of two workers of one thread,
against one call of ``predict_proba`` with one thread. Notes say what a million files take. Dask's
workers are started with an allocator that keeps memory, without which torch is up to three times
slower in them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch

from benchmarks._suite import Missing, Options, Result, Scratch, compare, films
from skcxr import CXRClassifier
from skcxr.distributed import PredictedFiles, predict

N_WORKERS = 2
KEEP = {
    "OMP_NUM_THREADS": 1, "MALLOC_TRIM_THRESHOLD_": 2**30, "MALLOC_MMAP_THRESHOLD_": 2**30,
    "MALLOC_ARENA_MAX": 1,
}  # fmt: skip


def run(options: Options) -> Iterator[Result | Missing]:
    """Our own network, and one of timm's."""
    with ExitStack() as stack:
        client, threads = None, torch.get_num_threads()
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads(1)
        try:
            import dask
            from dask.distributed import Client, LocalCluster
        except ImportError:
            yield Missing("past", "predictions on a cluster", "Dask", 'pip install ".[dask]"')
        else:
            # env= of LocalCluster comes too late for the allocator
            stack.enter_context(dask.config.set({"distributed.nanny.pre-spawn-environ": KEEP}))
            cluster = stack.enter_context(
                LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address=":0")
            )
            client = stack.enter_context(Client(cluster))
        yield from shards(options, client, "cxrnet", 128, 2000)
        if not options.quick:
            try:
                yield from shards(options, client, "timm:tf_efficientnet_lite0", 224, 200)
            except ImportError:
                install = 'pip install ".[timm]"'
                yield Missing("past", "EfficientNet-Lite0", "predict_proba", install)


def shards(
    options: Options, client: Any, backbone: str, size: int, n_files: int
) -> Iterator[Result]:
    """Of one network."""
    n_files, n_pairs = (32, 1) if options.quick else (n_files, options.repeat or 5)
    paths, labels = films(options, n_files)
    weights = options.weights if backbone.startswith("timm") else None
    clf = CXRClassifier(
        backbone, weights=weights, image_size=size, max_epochs=1, freeze="backbone", random_state=0
    ).fit(paths[:16], labels[:16])  # fmt: skip
    shard_size = max(1, n_files // (8 * N_WORKERS))
    last: dict[str, PredictedFiles] = {}

    def of(name: str, client: Any) -> PredictedFiles:
        last[name] = predict(clf, paths, Scratch.new(name), shard_size=shard_size, client=client)
        return last[name]

    what = f"predict {n_files:,} files with {backbone.rpartition(':')[2]}, {size} px"
    lines = compare(
        "past", f"{what}, in shards", lambda: of("here", None),
        {"one predict_proba": lambda: clf.predict_proba(paths)}, n_pairs, per=n_files, unit="files",
    )  # fmt: skip
    per_file = float(torch.tensor(lines[0].raw[1]).median()) / n_files
    read = sum(map(os.path.getsize, paths)) / n_files
    written = sum(map(os.path.getsize, last["here"].tables)) / n_files
    start = time.perf_counter()
    predict(clf, paths, last["here"].folder, shard_size=shard_size)
    again = time.perf_counter() - start
    note = (
        f"a million files: {1e6 * per_file / 3600:.1f} core hours, {read / 1e3:.0f} GB read, "
        f"{written:.0f} MB of tables; to find that all is done {again:.2f} s"
    )
    for line in lines:
        yield Result(**{**vars(line), "note": note})
    if client is not None:
        yield from compare(
            "past", f"{what}, on {N_WORKERS} workers of a cluster", lambda: of("there", client),
            {"one predict_proba": lambda: clf.predict_proba(paths)}, n_pairs, per=n_files,
            unit="files",
        )  # fmt: skip
