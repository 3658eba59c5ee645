"""
Few radiographs, four ways
==========================

With a dozen images of a class a network has little to learn from. One that has learnt on other
radiographs knows edges, ribs and opacities already. Four ways to a classifier are compared, by the
number of training images: a network from scratch, and three that begin with the same weights,
namely a head on a frozen network, a logistic regression on its features, and fine-tuning.

The radiographs are drawings, and the network has learnt on drawings of the same kind, which is the
kindest case that there is; the curves say nothing about other images.
"""

# %%
# First the weights: a network learns to tell healthy lungs, bacterial and viral pneumonia.
# :func:`skcxr.save_model` writes its weights to a file. They are kept without the head, whose
# three classes are not those that will be asked for.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, learning_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skcxr import CXRClassifier, CXRFeatures, make_cxr_phantoms, save_model

scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name)

others = make_cxr_phantoms(240, n_classes=3, image_size=48, random_state=1)
teacher = CXRClassifier("cxrnet", max_epochs=15, random_state=0).fit(others.data, others.target)
save_model(teacher, folder / "teacher")
tensors = load_file(folder / "teacher" / "model.safetensors")
weights = str(folder / "body.safetensors")
save_file({name: value for name, value in tensors.items() if ".head." not in name}, weights)

# %%
# Then the task: bacterial pneumonia or Covid-19, which this network has never seen, in 150 images
# of 50 other phantom patients that are harder to read (``noise=2``).

drawn = make_cxr_phantoms(300, n_classes=4, image_size=48, noise=2.0, random_state=0)
asked = np.isin(drawn.target, ["Bacterial Pneumonia", "Covid-19"])
X, y, patients = drawn.data[asked], drawn.target[asked], drawn.groups[asked]

# %%
# The four ways. A frozen network embeds each image once, so the two in the middle take no time.

ways = {
    "from scratch": CXRClassifier("cxrnet", max_epochs=30, random_state=0),
    "frozen, with a head": CXRClassifier(
        "cxrnet", weights=weights, freeze="backbone", random_state=0
    ),
    "CXRFeatures + LogisticRegression": make_pipeline(
        CXRFeatures("cxrnet", weights=weights), StandardScaler(), LogisticRegression(C=0.1)
    ),
    "fine-tuned": CXRClassifier(
        "cxrnet", weights=weights, max_epochs=30, lr=0.003, backbone_lr_mult=0.1, random_state=0
    ),
}

# %%
# Folds are by patient. The classes take turns in the training images, so the first n hold as many
# of each.

rng = np.random.default_rng(0)
folds = []
for train, test in StratifiedGroupKFold(3, shuffle=True, random_state=0).split(X, y, patients):
    turns = [rng.permutation(train[y[train] == label]) for label in np.unique(y)]
    folds.append((np.ravel([*zip(*turns, strict=False)]), test))

per_class = np.array([5, 10, 20])
curves = {}
for name, model in ways.items():
    _, _, curves[name] = learning_curve(
        model, X, y, cv=folds, train_sizes=2 * per_class, scoring="roc_auc"
    )
    row = "  ".join(f"{mean:.2f} +- {std:.2f}" for mean, std in zip(
        curves[name].mean(axis=1), curves[name].std(axis=1), strict=True
    ))  # fmt: skip
    print(f"{name:33} {row}")

# %%
# The bars are the spread of the folds, one standard deviation to either side.

fig, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
for k, (name, values) in enumerate(curves.items()):
    places = per_class * 1.03 ** (k - 1.5)  # side by side
    axis.errorbar(
        places, values.mean(axis=1), values.std(axis=1), marker="o", capsize=3, label=name
    )
axis.axhline(0.5, color="tab:gray", linestyle=":", label="chance")
axis.set(xscale="log", xlabel="training images of each class", ylabel="area under the ROC curve")
axis.set_xticks(per_class, [str(n) for n in per_class], minor=False)
axis.minorticks_off()
axis.legend(loc="lower right")
axis.set_title(
    "Mean and spread of 3 folds by patient, 150 drawings of 50 phantom patients", fontsize=10
)
plt.show()

# %%
# What a network has learnt helps where it bears on the question. With "Healthy" in place of
# "Bacterial Pneumonia" above, and all else the same, the network from scratch comes out ahead of
# the other three, within the spread of the folds. Compare on your own films, and keep the simplest
# way that is not beaten.

scratch.cleanup()
