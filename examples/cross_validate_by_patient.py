"""
Cross-validation by patient, beside a classical pipeline
=========================================================

A convolutional network and a random forest on small images are compared on phantoms (drawn
radiographs). Whole patients are held back: images of one patient on both sides of a split make
every score too good.
"""

import tempfile
from pathlib import Path

from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from skcxr import CXRClassifier, ImageLoader, load_cxr_folder, make_cxr_phantoms

with tempfile.TemporaryDirectory() as scratch:
    folder = Path(scratch) / "phantoms"
    make_cxr_phantoms(96, n_patients=32, image_size=64, random_state=0, save_to=folder)
    data = load_cxr_folder(folder)

    models = {
        "network": CXRClassifier(image_size=64, max_epochs=30, random_state=0),
        "forest": make_pipeline(
            ImageLoader(image_size=24, output="rows"), RandomForestClassifier(random_state=0)
        ),
    }
    by_patient = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    for name, model in models.items():
        scores = cross_val_score(model, data.data, data.target, groups=data.groups, cv=by_patient)
        print(f"{name:8} accuracy {scores.mean():.2f} (folds {scores.round(2)})")
