"""Peak memory of fit and predict_proba on paths: 1,000 files against 10,000.

    python -m benchmarks.memory

Each size runs in a process of its own with ``ram_limit=0``; the figure is the operating
system's peak resident size.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

_CHILD = """
import resource, sys
from pathlib import Path
from skcxr import CXRClassifier
paths = sorted(map(str, Path(sys.argv[1]).glob("*/*.png")))
labels = [Path(path).parent.name for path in paths]
clf = CXRClassifier(random_state=0, ram_limit=0, max_epochs=1, image_size=64)
clf.fit(paths, labels).predict_proba(paths)
print(len(paths), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak(folder: Path) -> float:
    """MiB at the peak of a process that fits and predicts the files of `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(folder)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[1])


def main() -> None:
    """Print both peaks and their ratio."""
    from skcxr import make_cxr_phantoms

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs=2, default=[1000, 10_000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        peaks = []
        for n in options.sizes:
            folder = Path(scratch) / str(n)
            make_cxr_phantoms(n, image_size=64, random_state=0, save_to=folder)
            peaks.append(peak(folder))
            print(f"{n} files: peak {peaks[-1]:.0f} MiB")
    print(f"ratio {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
