"""
A network and pixels, stacked
=============================

A convolutional network and a classical pipeline (pixels, principal components, logistic
regression) see the same files. :class:`~sklearn.ensemble.StackingClassifier` learns how much to
believe each. All splits are by patient, those inside the stack too.

The radiographs are drawings; the order of the bars says nothing about other images.
"""

# %%
# Files of 96 images of 48 phantom patients.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline

from skcxr import CXRClassifier, ImageLoader, load_cxr_folder, make_cxr_phantoms

scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name) / "phantoms"
make_cxr_phantoms(
    96, n_classes=2, n_patients=48, image_size=48, noise=0.5, random_state=0, save_to=folder
)
data = load_cxr_folder(folder)
paths, y, patients = np.array(data.data), data.target, data.groups

# %%
# Both members take paths. :class:`skcxr.ImageLoader` with ``output="rows"`` is the way from files
# to any scikit-learn estimator.

network = CXRClassifier(image_size=48, max_epochs=20, random_state=0)
pixels = make_pipeline(
    ImageLoader(image_size=24, output="rows"),
    PCA(12, random_state=0),
    LogisticRegression(max_iter=1000),
)

# %%
# The stack fits its members on folds of its own to see them on images that they have not seen. It
# does not pass patients to these folds, so they are made beforehand and given as a list.

outer = StratifiedGroupKFold(3, shuffle=True, random_state=0)
inner = StratifiedGroupKFold(3, shuffle=True, random_state=1)
scores: dict[str, list[float]] = {"network": [], "pixels": [], "stack": []}
for train, test in outer.split(paths, y, patients):
    stack = StackingClassifier(
        [("network", network), ("pixels", pixels)],
        cv=list(inner.split(paths[train], y[train], patients[train])),
    )
    stack.fit(paths[train], y[train])
    # the members, fitted on all training images, are in the stack: no need to fit them again
    for name, model in {**stack.named_estimators_, "stack": stack}.items():
        proba = model.predict_proba(paths[test])[:, 1]
        scores[name].append(float(roc_auc_score(y[test] == data.target_names[1], proba)))

for name, values in scores.items():
    print(f"{name:8} {np.mean(values):.2f}, folds {np.round(values, 2)}")

# %%
fig, axis = plt.subplots(figsize=(6, 4), layout="constrained")
axis.bar(list(scores), [np.mean(values) for values in scores.values()], color="tab:blue", alpha=0.5)
for position, values in enumerate(scores.values()):
    axis.plot([position] * len(values), values, "o", color="black", alpha=0.7)
axis.axhline(0.5, color="tab:gray", linestyle=":", label="chance")
axis.set(ylim=(0, 1.05), ylabel="area under the ROC curve")
axis.legend(loc="lower right")
axis.set_title(
    "Mean (bar) and 3 folds by patient (points)\n96 drawings of 48 phantom patients", fontsize=10
)
plt.show()

# %%
scratch.cleanup()
