"""Pictures of what a classifier does: augmentation, learning rates, heatmaps, errors."""

from skcxr.inspection._augmentation import AugmentationDisplay
from skcxr.inspection._learning_rate import LearningRateDisplay, lr_find

__all__ = ["AugmentationDisplay", "LearningRateDisplay", "lr_find"]
