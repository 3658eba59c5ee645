"""What `skcxr` shows, and what it costs to import."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys

import pytest

import skcxr

NAMES = [
    "CXRClassifier", "CXRFeatures", "CheckpointError", "ContaminationWarning", "DatasetError",
    "DownloadError", "ImageLoader", "ImageReadError", "ImageReadWarning", "InputError",
    "MissingDependencyError", "ModelFileError", "PatientWarning", "PredictionError", "SkcxrError",
    "SkcxrWarning", "TrainingError", "WeightsError", "__version__", "export_onnx",
    "load_cxr_folder", "load_cxr_table", "load_model", "make_cxr_phantoms", "read_image",
    "save_model",
]  # fmt: skip


def test_exported_names():
    assert skcxr.__all__ == NAMES
    assert set(NAMES) <= set(dir(skcxr))
    for name in NAMES:
        assert getattr(skcxr, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = skcxr.nonsense


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_every_public_thing_is_documented(name):
    thing = getattr(skcxr, name)
    assert thing.__doc__
    if inspect.isfunction(thing) or name in ("CXRClassifier", "CXRFeatures", "ImageLoader"):
        for section in ("Parameters", "Examples"):
            assert f"{section}\n" in thing.__doc__, section


def test_import_does_not_wait_for_torch():
    code = "import skcxr, sys; assert not {'torch', 'sklearn', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_our_own_networks_do_not_wait_for_torchvision():
    code = (
        "import sys, numpy as np; from skcxr import CXRClassifier, CXRFeatures; "
        "X, y = np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]; X[::2, :4] = 9; "
        "CXRClassifier(max_epochs=1, random_state=0).fit(X, y); "
        "CXRFeatures('cxrnet', weights=None, random_state=0).fit(X).transform(X); "
        "assert 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_submodules_are_found_without_an_import_of_their_own():
    code = "import skcxr; skcxr.images.read_image; skcxr.datasets.load_cxr_folder"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_exceptions_are_builtins_too_and_travel():
    errors = [
        skcxr.ImageReadError("a.png", "empty"),
        skcxr.MissingDependencyError("pydicom", "dicom"),
        skcxr.InputError("x"),
        skcxr.DatasetError("x"),
        skcxr.WeightsError("x"),
    ]
    for error, builtin in zip(
        errors, (OSError, ImportError, ValueError, ValueError, ValueError), strict=True
    ):
        assert isinstance(error, skcxr.SkcxrError)
        assert isinstance(error, builtin)
        for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(other) is type(error)
            assert str(other) == str(error)
            assert vars(other) == vars(error)
    assert errors[0].path == "a.png"
    assert 'pip install "skcxr[dicom]"' in str(errors[1])
