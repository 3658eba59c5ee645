"""
Ensembles, and whether they gain
================================

A convolutional network and two classical pipelines see the same files and err on different ones.
:class:`~sklearn.ensemble.VotingClassifier` averages their probabilities,
:class:`~sklearn.ensemble.StackingClassifier` learns how much to believe each. What an ensemble
gains over its best member is measured on patients whom none of them has seen, with an interval.

The radiographs are drawings; the order of the bars says nothing about other images.
"""

# %%
# Files of 120 images of 60 phantom patients.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier, StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline

from skcxr import CXRClassifier, ImageLoader, load_cxr_folder, make_cxr_phantoms

scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name) / "phantoms"
make_cxr_phantoms(
    120, n_classes=2, n_patients=60, image_size=48, noise=1.0, random_state=0, save_to=folder
)
data = load_cxr_folder(folder)
paths, y, patients = np.array(data.data), data.target, data.groups

# %%
# All members take paths. :class:`skcxr.ImageLoader` with ``output="rows"`` is the way from files
# to any scikit-learn estimator.

members = [
    ("network", CXRClassifier(image_size=48, max_epochs=20, random_state=0)),
    (
        "PCA + logistic",
        make_pipeline(
            ImageLoader(image_size=24, output="rows"),
            PCA(12, random_state=0),
            LogisticRegression(max_iter=1000),
        ),
    ),
    (
        "extra trees",
        make_pipeline(
            ImageLoader(image_size=24, output="rows"), ExtraTreesClassifier(200, random_state=0)
        ),
    ),
]

# %%
# Voting fits each member on all training images. The stack also fits them on folds of its own, to
# see them on images that they have not seen. It passes no patients to these folds, so they are
# made beforehand and given as a list.

outer = StratifiedGroupKFold(3, shuffle=True, random_state=0)
inner = StratifiedGroupKFold(3, shuffle=True, random_state=1)
proba: dict[str, np.ndarray] = {}
for train, test in outer.split(paths, y, patients):
    vote = VotingClassifier(members, voting="soft")
    stack = StackingClassifier(
        members, cv=list(inner.split(paths[train], y[train], patients[train]))
    )
    vote.fit(paths[train], y[train])
    stack.fit(paths[train], y[train])
    # the members, fitted on all training images, are in the vote: no need to fit them again
    for name, model in {**vote.named_estimators_, "vote": vote, "stack": stack}.items():
        proba.setdefault(name, np.zeros(len(y)))[test] = model.predict_proba(paths[test])[:, 1]

# %%
# Patients are drawn with replacement, two thousand times, and everything is scored anew on each
# draw. A gain is a difference within a draw: luck with the patients is the same for both sides.
# The best member is the one that was best here, which nobody knows beforehand, so this asks more
# of an ensemble than to beat the member that one would have taken.

positive = y == data.target_names[1]
names, patient = np.unique(patients, return_inverse=True)
rng = np.random.default_rng(0)
auc = {name: [roc_auc_score(positive, scores)] for name, scores in proba.items()}
for _ in range(2000):
    times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))[patient]
    for name, scores in proba.items():
        auc[name].append(roc_auc_score(positive, scores, sample_weight=times))
draws = {name: np.array(values) for name, values in auc.items()}  # the first is the data as it is

best = max(dict(members), key=lambda name: draws[name][0])
for name, values in draws.items():
    low, high = np.quantile(values[1:], [0.025, 0.975])
    print(f"{name:15} {values[0]:.3f}, 95% interval {low:.3f} to {high:.3f}")
for name in ("vote", "stack"):
    gain = draws[name] - draws[best]
    low, high = np.quantile(gain[1:], [0.025, 0.975])
    told = "a gain" if low > 0 else "a loss" if high < 0 else "no difference can be told"
    print(f"{name} over {best}: {gain[0]:+.3f}, 95% interval {low:+.3f} to {high:+.3f}: {told}")

# %%
# An interval that holds 0 says that these patients cannot tell whether there is a gain. More
# patients can; more draws cannot. The intervals are about patients and take each fit as it is:
# another seed moves the scores too.

fig, axes = plt.subplots(2, 1, figsize=(7, 4.5), layout="constrained", height_ratios=[5, 2])
for axis, rows in [
    (axes[0], draws),
    (axes[1], {name: draws[name] - draws[best] for name in ("vote", "stack")}),
]:
    for place, (name, values) in enumerate(rows.items()):
        colour = "tab:gray" if name in dict(members) else "tab:blue"
        axis.plot(np.quantile(values[1:], [0.025, 0.975]), [place, place], color=colour)
        axis.plot(values[0], place, "o", color=colour)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.5, -0.5)
axes[0].set_xlabel("area under the ROC curve")
axes[1].set_xlabel(f"gain over {best}")
axes[1].axvline(0, color="black", linestyle=":")
fig.suptitle(
    "3 folds by patient, 120 drawings of 60 phantom patients, 95% intervals over patients",
    fontsize=10,
)
plt.show()

# %%
scratch.cleanup()
