"""Seconds that ``import skcxr`` adds to ``import sklearn``, in pairs of new processes.

python -m benchmarks.import_time
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np


def seconds(code: str) -> float:
    """Wall time of a new interpreter that runs `code`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the paired difference."""
    seconds("import sklearn, skcxr")
    extra = [seconds("import sklearn, skcxr") - seconds("import sklearn") for _ in range(9)]
    low, median, high = np.quantile(extra, [0.25, 0.5, 0.75])
    print(f"import skcxr adds {median:.3f} s (quartiles {low:.3f} to {high:.3f}, 9 pairs)")


if __name__ == "__main__":
    main()
