"""
A model that may say nothing
============================

A classifier answers whatever it is shown: a hard film, a film that is upside down, a photograph.
Here :class:`~skcxr.outliers.OutlierGate` refuses what is no upright radiograph, and of the rest the
model keeps silent where it is least sure.

The radiographs are drawings; the curves say nothing about patients.
"""

# %%
# 150 images of 50 phantom patients to learn from, 150 of 75 others to calibrate, 300 of 150 others
# to test. They are hard to read (``noise=2``).

import matplotlib.pyplot as plt
import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from skcxr import CXRClassifier, make_cxr_phantoms
from skcxr.outliers import OutlierGate

options = {"n_classes": 2, "image_size": 48, "noise": 2.0}
train = make_cxr_phantoms(150, n_patients=50, random_state=0, **options)
held_back = make_cxr_phantoms(150, n_patients=75, random_state=1, **options)
test = make_cxr_phantoms(300, n_patients=150, random_state=2, **options)

# %%
# The gate learns from the training films alone, without labels. What it should refuse is made of
# the test films, drawn, or noise. All scores are above 0 for what passes.

gate = OutlierGate(n_synthetic=2000, random_state=0).fit(train.data)
rng = np.random.default_rng(0)
waves = np.sin(np.arange(48) / rng.uniform(0.5, 8, (300, 1, 1)))
kinds = {
    "test films": test.data,
    "mirrored": test.data[:, :, ::-1],
    "upside down": np.rot90(test.data, 2, axes=(1, 2)),
    "inverted": 255 - test.data,
    "stripes": np.broadcast_to(waves, (300, 48, 48)),
    "noise": rng.random((300, 48, 48)),
}

# %%
# The classifier, calibrated by one temperature on patients whom it has not seen. Its probabilities
# then decide which answers are given: those above a limit that rises from left to right.

clf = CXRClassifier(max_epochs=15, random_state=0)
clf.fit(train.data, train.target, groups=train.groups)
calibrated = CalibratedClassifierCV(FrozenEstimator(clf), method="temperature")
calibrated.fit(held_back.data, held_back.target)
passed = gate.predict(test.data) == 1
proba = calibrated.predict_proba(test.data[passed])
right = calibrated.classes_[proba.argmax(axis=1)] == test.target[passed]
surest_first = np.argsort(-proba.max(axis=1), kind="stable")
answered = np.arange(1, len(right) + 1) / len(test.data)
accuracy = np.cumsum(right[surest_first]) / np.arange(1, len(right) + 1)

# %%
# Left, the scores of the gate, a dot for each picture. Right, the accuracy among the answers that
# are given: if the surest answers were no better than the others, the line would be flat.

fig, (gated, silent) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for row, pictures in enumerate(kinds.values()):
    height = row + rng.uniform(-0.3, 0.3, len(pictures))
    gated.plot(gate.decision_function(pictures), height, ".", markersize=2)
gated.axvline(0, color="black", linewidth=1)
gated.set_yticks(range(len(kinds)), list(kinds))
gated.invert_yaxis()
gated.set(xlabel="refused  < 0 <  let pass", title="OutlierGate")
silent.plot(answered[20:], accuracy[20:])
silent.set(xlabel="share of the test drawings that is answered", ylabel="accuracy among these")
silent.set_title("300 drawings of 150 phantom patients", fontsize=10)
plt.show()

# %%
# How far to go to the left is no question of statistics: every film without an answer is read by a
# person. :doc:`/user_guide/abstaining` shows sets of classes, which say how many of them hold the
# truth.
