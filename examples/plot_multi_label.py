"""
Several findings in one image
=============================

A radiograph may show several findings, and a reader may have looked for some of them only. A y of
one column for each finding holds 1, 0 or, where nobody looked, NaN, and
:class:`skcxr.CXRClassifier` learns all columns with one network.

The radiographs are drawings; the curves say nothing about patients.
"""

# %%
# Findings
# --------
# Drawn pneumonias have one of three patterns, and each of these is an opacity: two columns may be
# 1 at once. Three of ten labels are removed, here by lot.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import RocCurveDisplay, roc_auc_score

from skcxr import CXRClassifier, make_cxr_phantoms
from skcxr.metrics import make_masked_scorer

PATTERNS = {
    "Bacterial Pneumonia": "consolidation",
    "Viral Pneumonia": "interstitial",
    "Covid-19": "ground glass",
}


def findings_of(labels: np.ndarray, seed: int) -> pd.DataFrame:
    """One column for each finding, with gaps."""
    table = pd.DataFrame({"opacity": (labels != "Healthy").astype(float)})
    for name, pattern in PATTERNS.items():
        table[pattern] = (labels == name).astype(float)
    return table.mask(np.random.default_rng(seed).random(table.shape) < 0.3)


options = {"image_size": 64, "noise": 1.5}
train = make_cxr_phantoms(200, n_patients=100, random_state=0, **options)
test = make_cxr_phantoms(160, n_patients=80, random_state=1, **options)
Y_train, Y_test = findings_of(train.target, seed=0), findings_of(test.target, seed=1)
Y_train.head()

# %%
# Fit
# ---
# The names of the columns become ``findings_``. A label that is NaN counts neither way.
# ``class_weight="balanced"`` weighs presence against absence, for each finding by itself.

clf = CXRClassifier(max_epochs=20, class_weight="balanced", random_state=0)
clf.fit(train.data, Y_train)
proba = pd.DataFrame(clf.predict_proba(test.data), columns=clf.findings_)
proba.head().round(2)

# %%
# Score
# -----
# scikit-learn's scorers refuse NaN. :func:`skcxr.metrics.make_masked_scorer` takes each finding
# over the images in which it is labelled and gives the mean; it goes into
# :func:`~sklearn.model_selection.cross_val_score` and searches as ``scoring=``.

scorer = make_masked_scorer(roc_auc_score, response_method="predict_proba")
print(f"mean area under the ROC curve: {scorer(clf, test.data, Y_test):.2f}")


def interval(truth: np.ndarray, score: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """95% interval of the area, from drawing whole patients with replacement."""
    rng, members = np.random.default_rng(0), [np.flatnonzero(groups == g) for g in set(groups)]
    areas = []
    for _ in range(300):
        rows = np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))])
        if 0 < truth[rows].sum() < len(rows):
            areas.append(roc_auc_score(truth[rows], score[rows]))
    return np.quantile(areas, [0.025, 0.975])


# %%
fig, axes = plt.subplots(2, 2, figsize=(7, 7.6), layout="constrained")
for axis, finding in zip(axes.flat, clf.findings_, strict=True):
    known = Y_test[finding].notna().to_numpy()
    truth, score = Y_test[finding][known].to_numpy(), proba[finding][known].to_numpy()
    low, high = interval(truth, score, test.groups[known])
    RocCurveDisplay.from_predictions(truth, score, ax=axis, plot_chance_level=True)
    axis.get_legend().remove()
    axis.set(xlabel="false positive rate", ylabel="true positive rate")
    axis.set_title(
        f"{finding}\narea {roc_auc_score(truth, score):.2f} ({low:.2f} to {high:.2f})\n"
        f"{len(truth)} drawings, {truth.sum():.0f} with it",
        fontsize=9,
    )
fig.suptitle("80 phantom patients, none of them in training; 95% interval over patients", size=9)
plt.show()
