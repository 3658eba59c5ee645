"""What OutlierGate refuses, against IsolationForest on the same pictures.

    python -m benchmarks.outliers DATA [--fit covid4] [--films 309] [--pictures FOLDER] [--seed 0]

All learn from radiographs of DATA/<fit> and are shown those of other hospitals (adults256, nih64),
as they are, taken a little differently, turned and inverted; noise; and pictures of other kinds:
those that are found in FOLDER, else in the packages that are installed. For each kind the share
that is refused and the AUROC against the radiographs of each hospital as they are. What is taken a
little differently should pass: an AUROC of 0.5 is best there.
"""

from __future__ import annotations

import argparse
import io
import sysconfig
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

from skcxr import ImageLoader
from skcxr.outliers import OutlierGate

SIDE = 64


def paths_of(folder: Path) -> list[str]:
    """Files of a collection."""
    return [str(path) for path in sorted(folder.glob("*/*"))]


def pictures_in(folder: Path, most: int = 400) -> list[str]:
    """Pictures of some size that are not of one gray value."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".tif", ".webp"):
            continue
        try:
            with Image.open(path) as image:
                low, high = image.convert("L").resize((32, 32)).getextrema()
                if min(image.size) >= 48 and max(image.size) <= 4000 and high > low:
                    found.append(str(path))
        except OSError:
            continue
    return np.random.default_rng(0).permutation(found)[:most].tolist()


def as_rows(films: np.ndarray) -> np.ndarray:
    """Pixels as the peers take them."""
    images = (Image.fromarray(film.astype(np.float32)) for film in films)
    return np.stack([np.asarray(image.resize((SIDE, SIDE))).ravel() for image in images])


def recompressed(film: np.ndarray) -> np.ndarray:
    """The film as a JPEG of low quality."""
    file = io.BytesIO()
    Image.fromarray(np.rint(film * 255).astype(np.uint8)).save(file, "JPEG", quality=25)
    return np.asarray(Image.open(file), np.float32) / 255


def differently(films: np.ndarray) -> dict[str, np.ndarray]:
    """The films as they might have been taken too."""
    framed, marked = films.copy(), films.copy()
    framed[:, :5] = framed[:, -5:] = framed[:, :, :5] = framed[:, :, -5:] = 1
    marked[:, 3:10, 3:10] = 1
    turned = {
        f"turned by {angle}": ndimage.rotate(films, angle, (2, 1), reshape=False, order=1)
        for angle in (-10, 10)
    }
    edge = SIDE // 10
    return turned | {
        "mirrored": films[:, :, ::-1],
        "cropped by a tenth": films[:, edge:-edge, edge:-edge],
        "dark (gamma 1.7)": films**1.7,
        "bright (gamma 0.6)": films**0.6,
        "half the contrast": 0.25 + films / 2,
        "white frame": framed,
        "white mark": marked,
        "JPEG of quality 25": np.stack([recompressed(film) for film in films]),
    }


def main() -> None:
    """Run it; see above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--fit", default="covid4", help="folder in DATA to learn from")
    parser.add_argument("--films", type=int, default=309, help="number of its films")
    parser.add_argument("--pictures", type=Path, default=Path(sysconfig.get_paths()["purelib"]))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with threadpool_limits(1):
        run(options)


def run(options: argparse.Namespace) -> None:
    """Fit and print."""

    def images(paths: list[str]) -> np.ndarray:
        return ImageLoader(SIDE).fit_transform(paths)

    rng = np.random.default_rng(options.seed)
    learnt = rng.permutation(paths_of(options.data / options.fit))[: options.films].tolist()
    start = time.perf_counter()
    gate = OutlierGate(random_state=options.seed).fit(learnt)
    print(f"OutlierGate: fitted to {len(learnt)} files in {time.perf_counter() - start:.1f} s")
    rows = images(learnt).reshape(len(learnt), -1)
    forest = IsolationForest(random_state=0).fit(rows)
    reduced = make_pipeline(PCA(50, random_state=0), IsolationForest(random_state=0)).fit(rows)
    scorers = {
        "gate": gate.score_samples,
        "forest": lambda films: forest.score_samples(as_rows(films)),
        "PCA + forest": lambda films: reduced.score_samples(as_rows(films)),
    }

    inside = {}
    for name in ("adults256", "nih64"):
        paths = paths_of(options.data / name)
        start = time.perf_counter()
        refused = np.mean(gate.predict(paths) == -1)
        speed = len(paths) / (time.perf_counter() - start)
        print(f"{name}: {refused:.1%} of {len(paths)} files refused, {speed:.0f} files a second")
        inside[name] = images(paths)
    scores = {
        of: {name: score(films) for name, films in inside.items()} for of, score in scorers.items()
    }

    kinds = {
        "pictures": images(pictures_in(options.pictures)),
        "noise": rng.random((200, SIDE, SIDE)),
    }
    for name, films in inside.items():
        kinds |= {f"{name}, turned by {90 * k}": np.rot90(films, k, (1, 2)) for k in (1, 2, 3)}
        kinds[f"{name}, inverted"] = 1 - films
        kinds |= {f"({name}, {how})": changed for how, changed in differently(films).items()}
    table = []
    for kind, pictures in kinds.items():
        row = {"kind": kind, "n": len(pictures)}
        for of, score in scorers.items():
            outside = score(pictures)
            if of == "gate":
                row["refused"] = np.mean(outside < gate.offset_)
            for name in inside:
                y = np.repeat([1, 0], [len(inside[name]), len(pictures)])
                row[f"{of}, {name}"] = roc_auc_score(y, np.r_[scores[of][name], outside])
        table.append(row)
    print(pd.DataFrame(table).set_index("kind").to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
