"""
Why to split by patient
=======================

Several radiographs of one person look alike: same ribs, same heart, same build. If some of them
are in training and others in the test, a model that has learnt to know the person knows the
answer. The same models are scored here on both kinds of split.

The radiographs are drawings; the size of the difference says nothing about other data.
"""

# %%
# 120 images of 20 phantom patients, six of each. The patient is all that the six have in common:
# position, breath, exposure and noise are new in each.

import matplotlib.pyplot as plt
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from skcxr import CXRClassifier, make_cxr_phantoms

phantoms = make_cxr_phantoms(
    120, n_classes=2, n_patients=20, image_size=48, noise=1.0, random_state=0
)
rows = phantoms.data.reshape(len(phantoms.data), -1) / 255.0

# %%
models = {
    "nearest neighbour": (KNeighborsClassifier(1), rows),
    "extra trees": (ExtraTreesClassifier(200, random_state=0), rows),
    "CXRClassifier": (CXRClassifier(max_epochs=20, random_state=0), phantoms.data),
}
splits = {
    "by image (wrong)": (StratifiedKFold(4, shuffle=True, random_state=0), None),
    "by patient": (StratifiedGroupKFold(4, shuffle=True, random_state=0), phantoms.groups),
}
scores = {
    (model, split): cross_val_score(
        estimator, X, phantoms.target, groups=groups, cv=cv, scoring="accuracy"
    )
    for model, (estimator, X) in models.items()
    for split, (cv, groups) in splits.items()
}

# %%
fig, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for k, (split, colour) in enumerate(zip(splits, ["tab:orange", "tab:blue"], strict=True)):
    for position, model in enumerate(models):
        folds = scores[model, split]
        place = position + 0.38 * (k - 0.5)
        label = split if position == 0 else None
        axis.bar(place, folds.mean(), width=0.36, color=colour, alpha=0.5, label=label)
        axis.plot([place] * len(folds), folds, "o", color=colour)
axis.axhline(0.5, color="tab:gray", linestyle=":", label="chance")
axis.set_xticks(range(len(models)), list(models))
axis.set(ylim=(0, 1.35), ylabel="accuracy", yticks=[0, 0.25, 0.5, 0.75, 1])
axis.legend(ncols=3, loc="upper center")
axis.set_title("Mean (bar) and 4 folds (points), 120 drawings of 20 phantom patients", fontsize=10)
plt.show()

# %%
# Only the blue bars tell how a model does on people whom it has not seen.
