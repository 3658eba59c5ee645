"""What a million radiographs cost: prediction in shards, here and on a cluster of this machine.

    python -m benchmarks.past FOLDER [--files 2000] [--weights FILE] [--workers 2]

FOLDER holds images, in folders of a class each. Images a second of `skcxr.distributed.predict`,
with one thread here and on a LocalCluster of `workers` processes of one thread, against one call of
``predict_proba`` with one thread; bytes of tables; and from these what a million takes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skcxr import CXRClassifier, load_cxr_folder
from skcxr.distributed import predict

# Dask's workers tell glibc to give memory back at once, which makes torch three times slower
KEEP = {
    "OMP_NUM_THREADS": 1, "MALLOC_TRIM_THRESHOLD_": 2**30, "MALLOC_MMAP_THRESHOLD_": 2**30,
    "MALLOC_ARENA_MAX": 1,
}  # fmt: skip


def measure(clf: CXRClassifier, paths: list[str], client: Any, n_workers: int) -> None:
    """Print the three rates and what a million takes."""
    shard = max(1, len(paths) // (8 * n_workers))
    with tempfile.TemporaryDirectory() as folder:
        predict(clf, paths[: 2 * n_workers], os.path.join(folder, "warm"), shard_size=1,
                client=client)  # fmt: skip
        start = time.perf_counter()
        clf.predict_proba(paths)
        plain = len(paths) / (time.perf_counter() - start)
        start = time.perf_counter()
        predict(clf, paths, os.path.join(folder, "here"), shard_size=shard)
        here = len(paths) / (time.perf_counter() - start)
        start = time.perf_counter()
        done = predict(clf, paths, os.path.join(folder, "there"), shard_size=shard, client=client)
        there = len(paths) / (time.perf_counter() - start)
        size = sum(os.path.getsize(table) for table in done.tables) / len(paths)
        start = time.perf_counter()
        predict(clf, paths, os.path.join(folder, "there"), shard_size=shard, client=client)
        again = time.perf_counter() - start
    read = sum(map(os.path.getsize, paths)) / len(paths)
    print(
        f"{clf.backbone_} {clf.image_size_[0]} px, {len(paths)} files of {read / 1e3:.0f} kB: "
        f"predict_proba {plain:.1f} images/s, in shards {here:.1f} ({here / plain:.2f}x), "
        f"{n_workers} workers {there:.1f} ({there / plain:.2f}x); a million: "
        f"{1e6 / plain / 3600:.1f} core hours, {read / 1e3:.0f} GB read, {size:.0f} MB of tables; "
        f"finding that all is done: {again:.2f} s"
    )


def main() -> None:
    """Measure our own network and, with weights, a pretrained one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--weights")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    import dask
    from dask.distributed import Client, LocalCluster

    dask.config.set({"distributed.nanny.pre-spawn-environ": KEEP})
    torch.set_num_threads(1)
    data = load_cxr_folder(options.folder, groups=lambda path: path)
    order = np.random.default_rng(0).permutation(len(data.target))
    some = order[: min(40, len(order))]
    models: list[dict[str, Any]] = [{"backbone": "cxrnet"}]
    if options.weights:
        models.append({"backbone": "timm:tf_efficientnet_lite0", "weights": options.weights})
    with (
        LocalCluster(
            n_workers=options.workers, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        for params in models:
            n_files = options.files if params["backbone"] == "cxrnet" else options.files // 5
            paths = [data.data[i] for i in itertools.islice(itertools.cycle(order), n_files)]
            clf = CXRClassifier(**params, max_epochs=1, random_state=0)
            clf.fit([data.data[i] for i in some], data.target[some])
            measure(clf, paths, client, options.workers)


if __name__ == "__main__":
    main()
