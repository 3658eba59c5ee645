"""
Cross-validation by patient, beside a classical pipeline
=========================================================

The same patients in train and test make a score too good. Here a convolutional network and a
random forest on small images are compared on phantoms (drawn radiographs), first with patients
mixed, then with whole patients held back.
"""

import tempfile
from pathlib import Path

from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from skcxr import CXRClassifier, ImageLoader, load_cxr_folder, make_cxr_phantoms

with tempfile.TemporaryDirectory() as scratch:
    folder = Path(scratch) / "phantoms"
    make_cxr_phantoms(
        120, n_classes=2, n_patients=24, image_size=64, noise=0.5, random_state=0, save_to=folder
    )
    data = load_cxr_folder(folder)

    models = {
        "network": CXRClassifier(random_state=0),
        "forest": make_pipeline(
            ImageLoader(image_size=24, output="rows"), RandomForestClassifier(random_state=0)
        ),
    }
    splits = {
        "patients mixed": StratifiedKFold(3, shuffle=True, random_state=0),
        "by patient": StratifiedGroupKFold(3, shuffle=True, random_state=0),
    }
    for name, model in models.items():
        for how, cv in splits.items():
            scores = cross_val_score(model, data.data, data.target, groups=data.groups, cv=cv)
            print(f"{name:8} {how:15} accuracy {scores.mean():.2f} (folds {scores.round(2)})")
