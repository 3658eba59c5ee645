"""An exported model against its classifier: how far apart, and how fast.

    python -m benchmarks.export FOLDER [--size 128] [--threads 1] [--repeat 5]

FOLDER has one sub-folder per class. A classifier is fitted for two epochs and exported; ONNX
Runtime gets every image twice, resized by ``ImageLoader`` and as it is, and its probabilities are
compared with those of ``predict_proba`` for the file. Then both predict the
images of the wanted size as arrays, 16 at a time, in turns, and the ratio of their times is told.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skcxr import CXRClassifier, ImageLoader, export_onnx, load_cxr_folder, read_image


def seconds(predict: Callable[[Any], Any], images: Any) -> float:
    """All images, 16 at a time."""
    start = time.perf_counter()
    for k in range(0, len(images), 16):
        predict(images[k : k + 16])
    return time.perf_counter() - start


def main() -> None:
    """Print the differences and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--backbone", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    import onnxruntime

    torch.set_num_threads(options.threads)
    data = load_cxr_folder(options.folder)
    clf = CXRClassifier(
        options.backbone, image_size=options.size, max_epochs=2, random_state=0
    ).fit(data.data, data.target)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        path = export_onnx(clf, Path(folder, "model.onnx"))
        print(f"{clf.backbone_}: exported in {time.perf_counter() - start:.1f} s, "
              f"{Path(path).stat().st_size / 2**20:.1f} MiB")  # fmt: skip
        threads = onnxruntime.SessionOptions()
        threads.intra_op_num_threads = options.threads
        session = onnxruntime.InferenceSession(path, threads, providers=["CPUExecutionProvider"])

    def run(images: Any) -> Any:
        return session.run(None, {"images": images})[0]

    expected = clf.predict_proba(data.data)
    loader = ImageLoader(image_size=clf.image_size_, interpolation=clf.interpolation_)
    sized = loader.fit_transform(data.data)
    whole = np.concatenate([run(read_image(path)[None]) for path in data.data])
    for name, found in (("resized by ImageLoader", run(sized)), ("resized in the graph", whole)):
        off = np.abs(found - expected).max(axis=1)
        other = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
        print(f"{name} of {len(off)} files: largest difference {off.max():.2g}, "
              f"median {np.median(off):.2g}, {other} other labels")  # fmt: skip
    ratios = []
    for _ in range(options.repeat):
        ratios.append(seconds(clf.predict_proba, sized) / seconds(run, sized))
    print(f"predict_proba takes {statistics.median(ratios):.2f} times as long as ONNX Runtime "
          f"({min(ratios):.2f} to {max(ratios):.2f}), {options.threads} threads")  # fmt: skip


if __name__ == "__main__":
    main()
