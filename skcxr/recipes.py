"""Named estimators for kinds of data sets: what an expert would begin with, as a function.

Each takes a data set as :func:`skcxr.load_cxr_folder` gives one, and gives an estimator that is not
yet fitted; :doc:`the guide </user_guide/recipes>` says what each was chosen on, by how much it won,
and where it was not tried. A recipe is a beginning: its parts are scikit-learn's and skcxr's, and
``get_params`` and ``set_params`` reach all of them.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import VotingClassifier
from sklearn.metrics import make_scorer
from sklearn.model_selection import StratifiedKFold, TunedThresholdClassifierCV
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import StandardScaler

from skcxr._exceptions import InputError
from skcxr._seeds import draw_seed
from skcxr._shipped import SHIPPED
from skcxr.augmentation import CXRAugmentation
from skcxr.batches import as_images, as_paths
from skcxr.classifier import CXRClassifier
from skcxr.features import CXRFeatures
from skcxr.metrics import target_sensitivity
from skcxr.model_selection import PatientKFold

__all__ = ["few_films", "few_films_ensemble", "screening", "thumbnails"]

_BACKBONE = "timm:tf_efficientnet_lite0"
_LAYERS = ("blocks.2", "blocks.3", "blocks.4", "blocks.5", None)
_NORMAL = {"normal", "healthy", "no finding", "no findings", "negative", "control", "0", "false"}

# poses and shapes wider than those of one hospital, for sets that are large enough to learn them
_STRONG = CXRAugmentation(
    degrees=12, translate=0.08, scale=0.2, gamma=0.4, aspect=0.3, interpolation="bilinear"
)


def few_films(
    data: Any,
    *,
    weights: str | os.PathLike[str] = "cxr",
    memory: Any = None,
    random_state: int | np.random.RandomState | None = None,
) -> Pipeline:
    """One model for some radiographs in some classes, from five of each on.

    Embeddings of a frozen network under a linear discriminant with a shrunk covariance, its
    probabilities brought to scale by one temperature. The network has learnt chest radiographs and
    comes with the package; or it is an EfficientNet-Lite0 that has learnt ImageNet, of which five
    layers are taken at two sizes of image.

    Parameters
    ----------
    data : Bunch
        A data set with ``data`` (paths, or images of shape (n, H, W)) and ``target``.
    weights : str or os.PathLike, default="cxr"
        "cxr" are the weights of the package for "cxrnet", which need no network and nothing else.
        With "DEFAULT", which downloads them, or a local file it is ImageNet weights of timm's
        ``tf_efficientnet_lite0``, which needs the extra ``skcxr[timm]``.
    memory : str, os.PathLike, joblib.Memory or None, default=None
        Folder for the embeddings, as in :class:`skcxr.CXRFeatures`; with one, a
        cross-validation embeds each image once.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds on which the temperature is found.

    Returns
    -------
    sklearn.pipeline.Pipeline
        CXRFeatures, or a FeatureUnion of two of them; StandardScaler, PCA (which loses nothing and
        saves time) and CalibratedClassifierCV of LinearDiscriminantAnalysis.

    Raises
    ------
    InputError
        `data` holds rows or tiny images, or a class of one image.

    References
    ----------
    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", J.
    Multivariate Analysis 88, 2004 (shrinkage). Guo et al., "On calibration of modern neural
    networks", ICML 2017 (temperature).

    Examples
    --------
    >>> from skcxr import make_cxr_phantoms
    >>> from skcxr.recipes import few_films
    >>> data = make_cxr_phantoms(20, n_classes=4, image_size=64, random_state=0)
    >>> model = few_films(data, random_state=0)
    >>> [name for name, _ in model.steps]
    ['cxrfeatures', 'standardscaler', 'pca', 'calibratedclassifiercv']
    >>> model.fit(data.data, data.target).predict_proba(data.data[:2]).shape
    (2, 4)
    """
    _, target = _films(data, "few_films")
    counts = np.unique(target, return_counts=True)[1]
    if counts.min() < 2:
        raise InputError("few_films needs two images of each class at least, to find a temperature")
    folds = StratifiedKFold(
        int(min(5, counts.min())), shuffle=True, random_state=draw_seed(random_state)
    )
    discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2)
    features = (
        CXRFeatures(weights=weights, memory=memory)
        if weights in SHIPPED
        else make_union(*(_frozen(weights, size, memory) for size in (320, 384)))
    )
    return make_pipeline(
        features,
        StandardScaler(),
        PCA(),
        CalibratedClassifierCV(discriminant, method="temperature", cv=folds, ensemble=False),
    )


def few_films_ensemble(
    data: Any,
    *,
    weights: str | os.PathLike[str] = "cxr",
    memory: Any = None,
    random_state: int | np.random.RandomState | None = None,
) -> VotingClassifier:
    """Several models for some hundred radiographs, their probabilities averaged.

    :func:`few_films` and, with half its say, a network that was trained from nothing on these films
    err on different films.

    Parameters
    ----------
    data : Bunch
        As for :func:`few_films`.
    weights : str or os.PathLike, default="cxr"
        As for :func:`few_films`.
    memory : str, os.PathLike, joblib.Memory or None, default=None
        As for :func:`few_films`.
    random_state : int, RandomState instance or None, default=None
        Seed of all that is drawn.

    Returns
    -------
    sklearn.ensemble.VotingClassifier
        Soft voting of a :class:`skcxr.CXRClassifier` and a pipeline.

    Raises
    ------
    InputError
        As :func:`few_films`.

    Examples
    --------
    >>> from skcxr import make_cxr_phantoms
    >>> from skcxr.recipes import few_films_ensemble
    >>> data = make_cxr_phantoms(20, n_classes=4, image_size=64, random_state=0)
    >>> model = few_films_ensemble(data, random_state=0)
    >>> [name for name, _ in model.estimators]
    ['scratch', 'frozen']
    """
    seed = draw_seed(random_state)
    scratch = CXRClassifier("cxrnet", memory=memory, random_state=seed)
    frozen = few_films(data, weights=weights, memory=memory, random_state=seed)
    members = [("scratch", scratch), ("frozen", frozen)]
    return VotingClassifier(members, voting="soft", weights=[1, 2])


def thumbnails(
    data: Any,
    *,
    n_members: int = 5,
    sensitivity: float | None = 0.95,
    pos_label: Any = None,
    random_state: int | np.random.RandomState | None = None,
) -> VotingClassifier | TunedThresholdClassifierCV:
    """Some thousand small radiographs, such as those of MedMNIST with 28 x 28 pixels.

    Networks trained from nothing, on images enlarged to 56 pixels and changed in pose and shape
    more than films of one hospital differ, averaged over seeds. For two classes the threshold is
    the highest one that still finds `sensitivity` of the positive images among a quarter that was
    set aside.

    Parameters
    ----------
    data : Bunch
        A data set with ``data`` (images of shape (n, H, W), or paths) and ``target``.
    n_members : int, default=5
        Networks to average.
    sensitivity : float or None, default=0.95
        Share of the positive images to find, in (0, 1); None keeps the threshold of 0.5, and so do
        more than two classes.
    pos_label : int, float, bool or str, default=None
        The positive class. None takes the one that is not called "normal", "healthy", "no
        finding", "negative", "control" or 0.
    random_state : int, RandomState instance or None, default=None
        Seed of all that is drawn.

    Returns
    -------
    sklearn.ensemble.VotingClassifier or sklearn.model_selection.TunedThresholdClassifierCV
        The estimator.

    Raises
    ------
    InputError
        The positive class cannot be told.

    Examples
    --------
    >>> from skcxr import make_cxr_phantoms
    >>> from skcxr.recipes import thumbnails
    >>> data = make_cxr_phantoms(20, n_classes=2, image_size=32, random_state=0)
    >>> model = thumbnails(data, n_members=2, random_state=0)
    >>> [name for name, _ in model.estimator.estimators]
    ['cxrnet_0', 'cxrnet_1']
    """
    _, target = _films(data, "thumbnails", least=2)
    seed = draw_seed(random_state)
    committee = _committee(
        n_members, seed, image_size=56, interpolation="bilinear", augmentation=_STRONG,
        max_epochs=_epochs(24, target),
    )  # fmt: skip
    return _with_threshold(committee, target, sensitivity, pos_label, seed)


def screening(
    data: Any,
    *,
    n_members: int = 3,
    sensitivity: float | None = 0.95,
    pos_label: Any = None,
    memory: Any = None,
    random_state: int | np.random.RandomState | None = None,
) -> VotingClassifier | TunedThresholdClassifierCV:
    """Normal or not, from some thousand radiographs of one hospital.

    Networks trained from nothing on images of 64 pixels, averaged over seeds. The threshold is the
    highest one that still finds `sensitivity` of the positive films among patients that were set
    aside: under a change of hospital or of year it is the recall of normal films that falls first.

    Parameters
    ----------
    data : Bunch
        A data set of two classes with ``data`` (paths, or images of shape (n, H, W)) and
        ``target``. Patients are taken from the names of files that carry them.
    n_members : int, default=3
        Networks to average.
    sensitivity : float or None, default=0.95
        Share of the positive films to find, in (0, 1); None keeps the threshold of 0.5.
    pos_label : int, float, bool or str, default=None
        The positive class. None takes the one that is not called "normal", "healthy", "no
        finding", "negative", "control" or 0.
    memory : str, os.PathLike, joblib.Memory or None, default=None
        Folder for the decoded images, as in :class:`skcxr.CXRClassifier`.
    random_state : int, RandomState instance or None, default=None
        Seed of all that is drawn.

    Returns
    -------
    sklearn.model_selection.TunedThresholdClassifierCV or sklearn.ensemble.VotingClassifier
        The estimator.

    Raises
    ------
    InputError
        There are not two classes, or the positive one cannot be told.

    Examples
    --------
    >>> from skcxr import make_cxr_phantoms
    >>> from skcxr.recipes import screening
    >>> data = make_cxr_phantoms(20, n_classes=2, image_size=64, random_state=0)
    >>> model = screening(data, random_state=0)
    >>> [name for name, _ in model.estimator.estimators]
    ['cxrnet_0', 'cxrnet_1', 'cxrnet_2']
    """
    _, target = _films(data, "screening")
    n_classes = len(np.unique(target))
    if n_classes != 2:
        raise InputError(f"screening tells two classes apart, and data.target holds {n_classes}")
    seed = draw_seed(random_state)
    epochs = _epochs(30, target)
    committee = _committee(n_members, seed, image_size=64, max_epochs=epochs, memory=memory)
    return _with_threshold(committee, target, sensitivity, pos_label, seed)


def _epochs(of_4000: int, target: np.ndarray[Any, Any]) -> int:
    """Passes over the images: so many for 4,000 and more, more for fewer."""
    return int(max(of_4000, min(60, round(of_4000 * (4000 / len(target)) ** 0.5))))


def _committee(n_members: int, seed: int, **settings: Any) -> VotingClassifier:
    """The same network from several seeds."""
    if int(n_members) != n_members or n_members < 1:
        raise InputError(f"n_members={n_members!r} is no number of networks: 1 or more")
    members = [
        (f"cxrnet_{k}", CXRClassifier("cxrnet", random_state=seed + k, **settings))
        for k in range(n_members)
    ]
    return VotingClassifier(members, voting="soft")


def _frozen(weights: Any, image_size: int, memory: Any) -> CXRFeatures:
    """Embeddings of the layers and the size that a recipe uses."""
    return CXRFeatures(
        _BACKBONE, weights=weights, layer=list(_LAYERS), image_size=image_size,
        interpolation="hamming", memory=memory,
    )  # fmt: skip


def _films(data: Any, recipe: str, least: int = 33) -> tuple[Any, np.ndarray[Any, Any]]:
    """X and y of a data set whose images are films of some size."""
    X, target = (getattr(data, name, None) for name in ("data", "target"))
    if X is None or target is None:
        raise InputError(
            f"{recipe} takes a data set with .data and .target, as load_cxr_folder gives one; got "
            f"{type(data).__name__}"
        )
    target = np.asarray(target)
    if target.ndim != 1:
        raise InputError(f"{recipe} is for one label an image; target has shape {target.shape}")
    if as_paths(X) is None:
        images = as_images(X, allow_nan=True)
        if images is None:
            raise InputError(f"{recipe} takes paths or images, and data.data holds rows")
        if min(images.shape[1:3]) < least:
            raise InputError(
                f"{recipe} is not for images of {images.shape[1]} x {images.shape[2]} pixels; "
                "see skcxr.recipes.thumbnails"
            )
    return X, target


def _with_threshold(
    model: Any, target: np.ndarray[Any, Any], sensitivity: float | None, pos_label: Any, seed: int
) -> Any:
    """The model, or for two classes the model with a threshold that its own data set."""
    classes = np.unique(target)
    if sensitivity is None or len(classes) != 2:
        return model
    if not 0 < sensitivity < 1:
        raise InputError(f"sensitivity={sensitivity!r} is not in (0, 1)")
    if pos_label is None:
        positive = [label for label in classes if str(label).strip().lower() not in _NORMAL]
        if len(positive) != 1:
            raise InputError(
                f"which of the classes {classes.tolist()} is the positive one cannot be told from "
                "their names; set pos_label="
            )
        pos_label = positive[0]
    elif pos_label not in classes:
        raise InputError(f"pos_label={pos_label!r} is none of the classes {classes.tolist()}")
    pos_label = pos_label.item() if isinstance(pos_label, np.generic) else pos_label
    return TunedThresholdClassifierCV(
        model,
        scoring=make_scorer(target_sensitivity, sensitivity=sensitivity, pos_label=pos_label),
        thresholds=1000,
        cv=PatientKFold(4, n_used=1, shuffle=True, random_state=seed),
    )
