"""
Probabilities that mean what they say
=====================================

Of the images to which a model gives a probability of 0.8, eight in ten should have the finding. A
network that was trained for long is often too sure of itself.
:class:`~sklearn.calibration.CalibratedClassifierCV` corrects that on patients whom the network
has not seen.

The radiographs are drawings; the curves say nothing about patients.
"""

# %%
# 90 images of 30 phantom patients to learn from, 300 of 150 others to test. They are hard to read
# (``noise=2``), or there would be nothing to be unsure of.

import matplotlib.pyplot as plt
import numpy as np
from sklearn import config_context
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.metrics import brier_score_loss
from sklearn.model_selection import StratifiedGroupKFold

from skcxr import CXRClassifier, make_cxr_phantoms

options = {"n_classes": 2, "image_size": 48, "noise": 2.0}
train = make_cxr_phantoms(90, n_patients=30, random_state=0, **options)
test = make_cxr_phantoms(300, n_patients=150, random_state=1, **options)

# %%
# The network alone, with nothing that holds its confidence back.

clf = CXRClassifier(max_epochs=30, random_state=0, label_smoothing=0.0)
alone = clf.fit(train.data, train.target)

# %%
# Calibrated in three folds. With metadata routing, scikit-learn passes the patients on to the
# splitter, and to the classifier, which asks for them by itself.

with config_context(enable_metadata_routing=True):
    calibrated = CalibratedClassifierCV(
        clf, cv=StratifiedGroupKFold(3, shuffle=True, random_state=0), ensemble=False
    )
    calibrated.fit(train.data, train.target, groups=train.groups)

# %%
# The curve of a calibrated model is the diagonal. The Brier score is the mean squared distance of
# probability and truth: lower is better, and always saying 0.5 gives 0.25.

healthy = (test.target == "Healthy").astype(int)
fig, (curve, bars) = plt.subplots(
    2, 1, figsize=(6, 7), layout="constrained", height_ratios=[2, 1], sharex=True
)
for name, model, colour in [
    ("network alone", alone, "tab:orange"),
    ("calibrated", calibrated, "tab:blue"),
]:
    proba = model.predict_proba(test.data)[:, list(model.classes_).index("Healthy")]
    label = f"{name}, Brier score {brier_score_loss(healthy, proba):.3f}"
    CalibrationDisplay.from_predictions(
        healthy, proba, n_bins=6, strategy="quantile", name=label, ax=curve, color=colour
    )
    bars.hist(proba, bins=np.linspace(0, 1, 21), histtype="step", linewidth=2, color=colour)
curve.set(xlabel="", ylabel="share that is healthy")
curve.set_title("300 test drawings of 150 phantom patients, none of them in training", fontsize=10)
bars.set(xlabel='predicted probability of "Healthy"', ylabel="images")
plt.show()
