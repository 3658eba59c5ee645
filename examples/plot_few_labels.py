"""
Five radiographs of each class
==============================

With five images of a class no network can be trained. A linear model on what another network makes
of them can: the package brings the weights ``"cxr"``, which have learnt chest radiographs of
children, and needs no download for them. Here they are compared with the same network from nothing
and with the same features of random weights, by the number of labels.

The radiographs are drawings, so the curves say nothing about films; :doc:`/user_guide/cxr_weights`
has those of real ones, and says when the weights do not help.
"""

# %%
# 120 phantom patients in four classes, harder to read than usual (``noise=2``).

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skcxr import CXRClassifier, CXRFeatures, make_cxr_phantoms

data = make_cxr_phantoms(240, n_classes=4, n_patients=120, image_size=96, noise=2, random_state=0)
X, y, patients = data.data, data.target, data.groups

# %%
# Five images of each class, and a classifier. ``fit`` takes a moment, on a laptop, offline.


def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`n` images of each class to learn from, and all images of other patients."""
    rng = np.random.default_rng(seed)
    train = np.concatenate([rng.permutation(np.flatnonzero(y == c))[:n] for c in np.unique(y)])
    return train, np.flatnonzero(~np.isin(patients, patients[train]))


train, test = draw(5, seed=0)
model = make_pipeline(CXRFeatures(weights="cxr"), StandardScaler(), LogisticRegression())
model.fit(X[train], y[train])
print(f"{len(train)} labels: {balanced_accuracy_score(y[test], model.predict(X[test])):.2f}")

# %%
# More labels, and two comparisons: the features of a network that has learnt nothing, and a network
# that is trained on these images alone.

ways = {
    'CXRFeatures(weights="cxr")': CXRFeatures(weights="cxr"),
    "CXRFeatures(weights=None)": CXRFeatures(
        "cxrnet", weights=None, image_size=128, random_state=0
    ),
}
counts, n_draws = [5, 10, 20], 10
curves = {}
for name, features in ways.items():
    embedded = features.fit_transform(X)  # once for all draws
    curves[name] = np.empty((len(counts), n_draws))
    for row, n in enumerate(counts):
        for seed in range(n_draws):
            train, test = draw(n, seed)
            linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            linear.fit(embedded[train], y[train])
            found = linear.predict(embedded[test])
            curves[name][row, seed] = balanced_accuracy_score(y[test], found)

name = "CXRClassifier()"
curves[name] = np.empty((len(counts), 2))
for row, n in enumerate(counts):
    for seed in range(2):
        train, test = draw(n, seed)
        scratch = CXRClassifier("cxrnet", max_epochs=30, random_state=0).fit(X[train], y[train])
        curves[name][row, seed] = balanced_accuracy_score(y[test], scratch.predict(X[test]))

for name, scores in curves.items():
    print(f"{name:28}", "  ".join(f"{n}: {mean:.2f}" for n, mean in zip(
        counts, scores.mean(axis=1), strict=True
    )))  # fmt: skip

# %%
# The bars are the spread of the draws, one standard deviation to either side.

fig, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
for k, (name, scores) in enumerate(curves.items()):
    places = np.array(counts) * 1.04 ** (k - 1)  # side by side
    axis.errorbar(
        places, scores.mean(axis=1), scores.std(axis=1), marker="o", capsize=3, label=name
    )
axis.axhline(0.25, color="tab:gray", linestyle=":", label="chance")
axis.set(xscale="log", xlabel="training images of each class", ylabel="balanced accuracy")
axis.set_xticks(counts, [str(n) for n in counts])
axis.minorticks_off()
axis.legend(loc="lower right")
axis.set_title("240 drawings of 120 phantom patients, other patients in the test", fontsize=10)
plt.show()
