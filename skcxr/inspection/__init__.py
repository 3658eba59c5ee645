"""Pictures of what a classifier does: augmentation, learning rates, heatmaps, errors."""

from skcxr.inspection._augmentation import AugmentationDisplay
from skcxr.inspection._errors import ErrorsDisplay
from skcxr.inspection._gradcam import GradCAMDisplay
from skcxr.inspection._learning_rate import LearningRateDisplay, lr_find
from skcxr.inspection._occlusion import OcclusionDisplay
from skcxr.inspection._randomisation import RandomisationDisplay
from skcxr.inspection._reliability import ReliabilityDisplay

__all__ = [
    "AugmentationDisplay",
    "ErrorsDisplay",
    "GradCAMDisplay",
    "LearningRateDisplay",
    "OcclusionDisplay",
    "RandomisationDisplay",
    "ReliabilityDisplay",
    "lr_find",
]
