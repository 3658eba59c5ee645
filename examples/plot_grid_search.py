"""
Search for a learning rate
==========================

:class:`~sklearn.model_selection.GridSearchCV` searches the parameters of
:class:`skcxr.CXRClassifier` as it searches those of any classifier. The patients go to ``fit`` as
``groups``, so no patient stands on both sides of a fold.

The radiographs are drawings; the best value here says nothing about other images.
"""

# %%
# 96 images of 48 phantom patients, healthy or with a pneumonia in one lobe.

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

from skcxr import CXRClassifier, make_cxr_phantoms

phantoms = make_cxr_phantoms(
    96, n_classes=2, n_patients=48, image_size=48, noise=0.5, random_state=0
)

# %%
# Four rates, three folds: twelve fits. ``refit=False`` leaves out the thirteenth, on all images,
# which would become ``search.best_estimator_``.

search = GridSearchCV(
    CXRClassifier(max_epochs=15, random_state=0),
    {"lr": [0.0001, 0.001, 0.003, 0.03]},
    scoring=["roc_auc", "neg_log_loss"],
    cv=StratifiedGroupKFold(3, shuffle=True, random_state=0),
    refit=False,
)
search.fit(phantoms.data, phantoms.target, groups=phantoms.groups)

results = pd.DataFrame(search.cv_results_).set_index("param_lr")
results.filter(regex="mean_test|std_test").round(2)

# %%
# The points are the folds; their spread is what three folds of 16 patients can tell.

fig, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for axis, metric, label in zip(
    axes, ["roc_auc", "neg_log_loss"], ["area under the ROC curve", "minus log loss"], strict=True
):
    folds = results[[f"split{k}_test_{metric}" for k in range(3)]]
    axis.plot(folds.index, folds, "o", color="tab:gray", alpha=0.6)
    axis.plot(folds.index, folds.mean(axis=1), "-", color="tab:blue", label="mean of 3 folds")
    axis.set(xscale="log", xlabel="lr", ylabel=label)
axes[0].legend(loc="upper left")
fig.suptitle("3 folds by patient, 96 drawings of 48 phantom patients", fontsize=10)
plt.show()

# %%
# The best score of a search is too good, because it was chosen. For an honest one put the search
# into a cross-validation of its own, or keep patients aside that it never sees.
