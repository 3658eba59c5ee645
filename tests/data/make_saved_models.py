"""Write tests/data/model_format_<n>/: small models as this version saves them, and what they say.

Run it once when ``FORMAT_VERSION`` is raised, from the root of the repository and before anything
else changes, and commit the folder::

    python tests/data/make_saved_models.py

A folder of an older format is never written anew: it has to come from the code of its time.
The images are phantoms.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skcxr import CXRClassifier, ImageLoader, save_model
from skcxr._model_files import FORMAT_VERSION


def phantoms(n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Images of 8 x 8 pixels with a bright bar across (h) or upright (v), drawn by a formula."""
    steps = np.arange(64).reshape(8, 8)
    images = np.stack([(steps * (7 * k + 3)) % 97 for k in range(n)]).astype(np.uint8)
    images[::2, 3:5, :] += 120
    images[1::2, :, 3:5] += 120
    return images, np.where(np.arange(n) % 2, "v", "h")


def write_phantoms(folder: Path) -> list[str]:
    """Write the same images to files."""
    paths = []
    for index, image in enumerate(phantoms()[0]):
        paths.append(str(folder / f"{index:02}.png"))
        Image.fromarray(image).save(paths[-1])
    return paths


def models(files: list[str]) -> dict[str, object]:
    images, labels = phantoms()
    findings = np.stack([labels == "v", np.arange(12) % 3 == 0], axis=1).astype(float)
    findings[3, 1] = np.nan
    small = {
        "backbone": "cxrnet", "net_params": {"module__width": 2}, "image_size": 8,
        "max_epochs": 2, "random_state": 0, "device": "cpu",
    }  # fmt: skip
    rows = make_pipeline(
        ImageLoader(8, output="rows"), StandardScaler(), LogisticRegression(C=0.01)
    )
    return {
        "classifier": CXRClassifier(**small).fit(images, labels),
        "findings": CXRClassifier(**small).fit(images, findings),
        "pipeline": make_pipeline(ImageLoader(8), CXRClassifier(**small)).fit(files, labels),
        "rows": rows.fit(files, labels),
    }


def main() -> int:
    folder = Path(__file__).parent / f"model_format_{FORMAT_VERSION}"
    if folder.exists():
        print(f"{folder} is there already, and stays as it is", file=sys.stderr)  # noqa: T201
        return 1
    expected = {}
    with tempfile.TemporaryDirectory() as place:
        files = write_phantoms(Path(place))
        for name, model in models(files).items():
            save_model(model, folder / name)
            X = files if name in ("pipeline", "rows") else phantoms()[0]
            expected[name] = model.predict_proba(X).tolist()
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
