"""scikit-learn compatible deep learning for chest radiographs. For research only."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skcxr._exceptions import (
        CheckpointError,
        ContaminationWarning,
        DatasetError,
        DownloadError,
        ImageReadError,
        ImageReadWarning,
        InputError,
        MissingDependencyError,
        ModelFileError,
        PatientWarning,
        PredictionError,
        SkcxrError,
        SkcxrWarning,
        TrainingError,
        WeightsError,
    )
    from skcxr.classifier import CXRClassifier
    from skcxr.datasets import load_cxr_folder, load_cxr_table, make_cxr_phantoms
    from skcxr.export import export_onnx
    from skcxr.features import CXRFeatures
    from skcxr.images import read_image
    from skcxr.persistence import load_model, save_model
    from skcxr.preprocessing import ImageLoader

__version__ = "0.1.0.dev0"

# name -> the module that has it; imported when it is first asked for, so that `import skcxr`
# does not wait for torch
_HOME = {
    "CXRClassifier": "classifier",
    "CXRFeatures": "features",
    "CheckpointError": "_exceptions",
    "ContaminationWarning": "_exceptions",
    "DatasetError": "_exceptions",
    "DownloadError": "_exceptions",
    "ImageLoader": "preprocessing",
    "ImageReadError": "_exceptions",
    "ImageReadWarning": "_exceptions",
    "InputError": "_exceptions",
    "MissingDependencyError": "_exceptions",
    "ModelFileError": "_exceptions",
    "PatientWarning": "_exceptions",
    "PredictionError": "_exceptions",
    "SkcxrError": "_exceptions",
    "SkcxrWarning": "_exceptions",
    "TrainingError": "_exceptions",
    "WeightsError": "_exceptions",
    "export_onnx": "export",
    "load_cxr_folder": "datasets",
    "load_cxr_table": "datasets",
    "load_model": "persistence",
    "make_cxr_phantoms": "datasets",
    "read_image": "images",
    "save_model": "persistence",
}
_MODULES = (
    "audit",
    "augmentation",
    "batches",
    "classifier",
    "cli",
    "datasets",
    "distributed",
    "export",
    "features",
    "images",
    "inspection",
    "metrics",
    "model_selection",
    "networks",
    "outliers",
    "persistence",
    "preprocessing",
    "recipes",
    "report",
    "training",
)

__all__ = [
    "CXRClassifier",
    "CXRFeatures",
    "CheckpointError",
    "ContaminationWarning",
    "DatasetError",
    "DownloadError",
    "ImageLoader",
    "ImageReadError",
    "ImageReadWarning",
    "InputError",
    "MissingDependencyError",
    "ModelFileError",
    "PatientWarning",
    "PredictionError",
    "SkcxrError",
    "SkcxrWarning",
    "TrainingError",
    "WeightsError",
    "__version__",
    "export_onnx",
    "load_cxr_folder",
    "load_cxr_table",
    "load_model",
    "make_cxr_phantoms",
    "read_image",
    "save_model",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"skcxr.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"skcxr.{name}")
    else:
        raise AttributeError(f"module 'skcxr' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
