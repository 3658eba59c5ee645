"""
A first classifier
==================

A folder of radiographs, a split by patient, a fit, and a look at what came out. The radiographs
are drawings of patients who do not exist; a score on them says nothing about patients.
"""

# %%
# Images
# ------
# :func:`skcxr.make_cxr_phantoms` writes a folder as it could have come from a hospital: one
# sub-folder per class, the patient in the file name. :func:`skcxr.load_cxr_folder` reads it back.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import StratifiedGroupKFold

from skcxr import CXRClassifier, load_cxr_folder, make_cxr_phantoms, read_image

scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name) / "phantoms"
make_cxr_phantoms(160, n_patients=54, image_size=64, random_state=0, save_to=folder)

data = load_cxr_folder(folder)
data.frame.groupby("target")["group"].agg(images="size", patients="nunique")

# %%
fig, axes = plt.subplots(1, 4, figsize=(10, 3), layout="constrained")
for axis, name in zip(axes, data.target_names, strict=True):
    first = int(np.argmax(data.target == name))
    axis.imshow(read_image(data.data[first]), cmap="gray", vmin=0, vmax=1)
    axis.set_title(name)
    axis.axis("off")
plt.show()

# %%
# Split by patient
# ----------------
# A quarter of the patients is held back. Images of one patient are alike: were they on both
# sides, the score would be too good.

paths, y, patients = np.array(data.data), data.target, data.groups
folds = StratifiedGroupKFold(4, shuffle=True, random_state=0)
train, test = next(folds.split(paths, y, patients))
print(f"train: {len(train)} images of {len(set(patients[train]))} patients")
print(f"test:  {len(test)} images of {len(set(patients[test]))} patients")

# %%
# Fit
# ---
# Files are decoded as they are needed. ``image_size`` and ``max_epochs`` are set to be quick;
# without them, images are brought to 128 x 128 pixels and a set of this size gets 60 epochs.

clf = CXRClassifier(image_size=64, max_epochs=40, random_state=0)
clf.fit(paths[train], y[train])

# %%
# Score
# -----
# The interval comes from drawing patients, not images, with replacement: images of one patient
# are not independent.

predicted = clf.predict(paths[test])
right = predicted == y[test]
_, patient = np.unique(patients[test], return_inverse=True)
hits, images = np.bincount(patient, right), np.bincount(patient)
drawn = np.random.default_rng(0).integers(len(images), size=(2000, len(images)))
low, high = np.quantile(hits[drawn].sum(1) / images[drawn].sum(1), [0.025, 0.975])
summary = (
    f"accuracy {right.mean():.2f} (95% interval {low:.2f} to {high:.2f})\n"
    f"{len(test)} test images of {len(images)} phantom patients"
)
print(summary)

# %%
fig, axis = plt.subplots(figsize=(6, 5), layout="constrained")
ConfusionMatrixDisplay.from_predictions(
    y[test], predicted, labels=clf.classes_, cmap="Blues", colorbar=False, ax=axis
)
axis.set_xticklabels(clf.classes_, rotation=20, ha="right")
axis.set_title(summary, fontsize=10)
plt.show()

# %%
# Single images
# -------------
# Two of each class, the wrong ones first. A probability of the network is no certainty; see
# :ref:`sphx_glr_auto_examples_plot_calibration.py`.

proba = clf.predict_proba(paths[test])
wrong_first = np.argsort(right, kind="stable")
order = [i for name in clf.classes_ for i in wrong_first[y[test][wrong_first] == name][:2]]
fig, axes = plt.subplots(2, 4, figsize=(10, 6), layout="constrained")
for axis, i in zip(axes.T.flat, order, strict=True):
    axis.imshow(read_image(paths[test][i]), cmap="gray", vmin=0, vmax=1)
    axis.set_title(
        f"is: {y[test][i]}\nsaid: {predicted[i]} ({proba[i].max():.2f})",
        fontsize=9,
        color="black" if right[i] else "firebrick",
    )
    axis.axis("off")
fig.suptitle("Drawings. For research only, not for diagnosis.", fontsize=9)
plt.show()

# %%
scratch.cleanup()
