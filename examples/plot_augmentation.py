"""
Before a long fit: augmentation and learning rate
=================================================

Two pictures to look at first. What does augmentation make of the images, and at which learning
rate does the loss fall?

The radiographs are drawings of phantom patients; what is best for them says nothing about films.
"""

# %%
# Augmentation
# ------------
# Each row is an image and five of the changes that it goes through in training: small poses and
# exposures, drawn anew in every epoch, and never a flip, which would turn the heart around.

import matplotlib.pyplot as plt

from skcxr import CXRClassifier, make_cxr_phantoms
from skcxr.augmentation import CXRAugmentation
from skcxr.inspection import AugmentationDisplay, lr_find

data = make_cxr_phantoms(96, n_patients=48, image_size=64, random_state=0)
AugmentationDisplay.from_policy(data.data[:3], random_state=0)
plt.show()

# %%
# :class:`~skcxr.augmentation.CXRAugmentation` has parameters, and some parts that are off because
# they pay only with many images: contrast, noise and a square that is cut out. Is what you look
# for still to be seen?

strong = CXRAugmentation(degrees=15, contrast=0.3, noise=0.1, cutout=0.25)
AugmentationDisplay.from_policy(data.data[:3], strong, random_state=0)
plt.show()

# %%
# Learning rate
# -------------
# :func:`~skcxr.inspection.lr_find` trains a copy of the classifier while the learning rate rises
# from batch to batch. On the left nothing is learnt yet, on the right the steps are too long. The
# classifier itself is not fitted by it.

clf = CXRClassifier(batch_size=16, random_state=0)
found = lr_find(clf, data.data, data.target)
found.plot()
plt.show()

# %%
# The steepest point depends on a few noisy batches, and other seeds show by how much. It is a
# cautious choice: look at the whole range from there to the lowest point, and stay to the left of
# where the loss grows.

fig, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for seed, axis in enumerate(axes, start=1):
    lr_find(clf.set_params(random_state=seed), data.data, data.target).plot(ax=axis)
    axis.set_title(f"random_state={seed}", fontsize=10)
plt.show()

# %%
# Rates in that range are for a search to compare, by patients that are not in the fit:
# :ref:`sphx_glr_auto_examples_plot_grid_search.py`.
