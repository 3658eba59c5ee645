"""What OutlierGate refuses, against IsolationForest on the same pictures.

    python -m benchmarks.outliers DATA [--pictures FOLDER]

Both learn from the radiographs of DATA/covid4 and are shown those of other hospitals (adults256,
nih64), the same turned and inverted, noise, and pictures of other kinds: those that are found in
FOLDER, else in the packages that are installed.
"""

from __future__ import annotations

import argparse
import sysconfig
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from skcxr import ImageLoader
from skcxr.outliers import OutlierGate


def pictures_in(folder: Path, n: int = 400) -> list[str]:
    """Pictures of some size, one in ten of a folder's at most."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".tif", ".webp"):
            continue
        try:
            with Image.open(path) as image:
                low, high = image.convert("L").resize((32, 32)).getextrema()
                if min(image.size) >= 48 and max(image.size) <= 3000 and high > low:
                    found.append(str(path))
        except OSError:
            continue
    return np.random.default_rng(0).permutation(found)[:n].tolist()


def main() -> None:
    """Run it; see above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=Path, default=Path(sysconfig.get_paths()["purelib"]))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    def images(paths: list[str]) -> np.ndarray:
        return ImageLoader(64, output="images").fit_transform(paths)

    def radiographs(name: str) -> np.ndarray:
        return images([str(path) for path in sorted((options.data / name).glob("*/*"))])

    learnt, adults, nih = (radiographs(name) for name in ("covid4", "adults256", "nih64"))
    rng = np.random.default_rng(options.seed)
    kinds = {"other pictures": images(pictures_in(options.pictures))}
    for name, films in (("adults256", adults), ("nih64", nih)):
        kinds |= {f"{name}, turned by {90 * k}": np.rot90(films, k, (1, 2)) for k in (1, 2, 3)}
        kinds[f"{name}, inverted"] = 1 - films
        kinds[f"{name}, mirrored (may pass)"] = films[:, :, ::-1]
    kinds["noise"] = rng.random((200, 64, 64))

    start = time.perf_counter()
    gate = OutlierGate(random_state=options.seed).fit(learnt)
    print(f"OutlierGate: fitted to {len(learnt)} films in {time.perf_counter() - start:.1f} s")
    peer = make_pipeline(PCA(50, random_state=0), IsolationForest(random_state=0))
    peer.fit(learnt.reshape(len(learnt), -1))

    def of_peer(films: np.ndarray) -> np.ndarray:
        return peer.score_samples(films.reshape(len(films), -1))

    start = time.perf_counter()
    inside = {"adults256": gate.score_samples(adults), "nih64": gate.score_samples(nih)}
    n = len(adults) + len(nih)
    print(f"{n / (time.perf_counter() - start):.0f} images per second, decoded before")
    for name, scores in inside.items():
        print(f"{name}: {np.mean(scores < gate.offset_):.1%} of {len(scores)} are refused")
    of_peers = {"adults256": of_peer(adults), "nih64": of_peer(nih)}
    for kind, films in kinds.items():
        ours, theirs = gate.score_samples(films), of_peer(films)
        line = [f"{kind} ({len(films)}): {np.mean(ours < gate.offset_):.1%} refused"]
        for name, scores in inside.items():
            y = np.repeat([1, 0], [len(scores), len(films)])
            line.append(
                f"AUROC against {name} {roc_auc_score(y, np.r_[scores, ours]):.3f} "
                f"(IsolationForest {roc_auc_score(y, np.r_[of_peers[name], theirs]):.3f})"
            )
        print(", ".join(line))


if __name__ == "__main__":
    main()
