"""OutlierGate: an outlier detector that knows what radiographs are."""

from __future__ import annotations

import os
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin, _fit_context
from sklearn.decomposition import PCA
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions
from sklearn.utils.validation import check_is_fitted

from skcxr._cache import Decoder
from skcxr._exceptions import InputError
from skcxr._inputs import Images, columns_kept, read_images
from skcxr._patients import patients_from_names
from skcxr._seeds import draw_seed
from skcxr.batches import BatchLoader, ImageDataset
from skcxr.outliers._drawn import oddities, retakes
from skcxr.outliers._looks import SIDE, look, unit

__all__ = ["OutlierGate"]

Array = np.ndarray[Any, Any]

_LEAST = 8  # films to learn from
_FOLDS = 3
_BATCH = 256


class OutlierGate(OutlierMixin, BaseEstimator):
    """Refuse what is not an upright, frontal chest radiograph.

    It learns from your own radiographs alone, without weights from elsewhere. The outliers it makes
    itself: the films turned, inverted, cut into pieces or enlarged, and drawn noise, scenes, pages
    and limbs; a classifier learns to tell them from the films [1]_ [2]_. Films that are placed,
    exposed, sharpened, framed or marked otherwise, or mirrored, are shown to it as films.

    For research only, as everything in skcxr.

    Parameters
    ----------
    contamination : "auto" or float, default="auto"
        Where the threshold lies. "auto" refuses what looks more like the outliers than like the
        films, which leaves room for other hospitals. A float in (0, 0.5] is the share of new films
        of the same kind that will be refused; see the notes.
    n_synthetic : int, default=6000
        Number of outliers that are made, 100 or more; and of altered films, of which there are a
        third as many. With fewer a fit is faster, and the gate is worse.
    row_shape : (int, int), default=None
        As in :class:`skcxr.CXRClassifier`.
    channel_axis : {"auto", 1, 3, -1}, default="auto"
        As in :class:`skcxr.CXRClassifier`.
    memory : str, os.PathLike, joblib.Memory or None, default=None
        Folder in which decoded files are kept, as in :class:`skcxr.ImageLoader`.
    random_state : int, RandomState instance or None, default=None
        Seed of what is made and drawn.

    Attributes
    ----------
    offset_ : float
        The score below which a picture is refused; 0 with ``contamination="auto"``.
    n_features_in_ : int
        Number of columns; only after a fit on a 2-D X.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns; only after a fit on a 2-D X whose column names are strings.

    See Also
    --------
    sklearn.ensemble.IsolationForest : Outliers among numbers of any kind.

    Notes
    -----
    Pictures are seen in gray at 48 x 48 pixels, stretched from the 2nd to the 98th percentile. The
    score is the log-odds of a logistic regression on the Nystroem approximation of an RBF kernel.

    With a float, `offset_` is a quantile of the scores of films that were set aside in three folds,
    by patient where `groups` or file names tell patients. It holds for films like those of the fit
    only: where these resemble each other, as those of one hospital do, a third of the films of
    another may be refused.

    It is no measure of image quality, and cannot tell that a model has not seen such patients.

    References
    ----------
    .. [1] I. Golan and R. El-Yaniv, "Deep anomaly detection using geometric transformations",
       NeurIPS 2018.
    .. [2] D. Hendrycks, M. Mazeika and T. Dietterich, "Deep anomaly detection with outlier
       exposure", ICLR 2019.

    Examples
    --------
    >>> from skcxr import make_cxr_phantoms
    >>> from skcxr.outliers import OutlierGate
    >>> films = make_cxr_phantoms(60, image_size=64, random_state=0).data
    >>> gate = OutlierGate(n_synthetic=1000, random_state=0).fit(films[::2])
    >>> upside_down = films[1::2, ::-1]
    >>> float((gate.predict(upside_down) == -1).mean())
    1.0
    """

    __metadata_request__fit: ClassVar[dict[str, bool]] = {"groups": True}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "n_synthetic": [Interval(Integral, 100, None, closed="left")],
        "row_shape": [None, tuple, list],
        "channel_axis": [StrOptions({"auto"}), Options(Integral, {1, 3, -1})],
        "memory": [None, str, os.PathLike, HasMethods("cache")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        contamination: str | float = "auto",
        *,
        n_synthetic: int = 6000,
        row_shape: tuple[int, int] | None = None,
        channel_axis: str | int = "auto",
        memory: Any = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.contamination = contamination
        self.n_synthetic = n_synthetic
        self.row_shape = row_shape
        self.channel_axis = channel_axis
        self.memory = memory
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None, *, groups: Any = None) -> OutlierGate:
        """Learn what radiographs look like.

        Parameters
        ----------
        X : paths or array
            Upright, frontal, not inverted radiographs, as :class:`skcxr.CXRClassifier` takes them;
            8 or more.
        y : ignored
            Here for scikit-learn's sake.
        groups : array-like of shape (n,), default=None
            The patient of each film, used where `contamination` is a float. None takes them from
            file names of known collections; a film without is a patient of its own.

        Returns
        -------
        OutlierGate
            The gate itself.

        Raises
        ------
        InputError
            X cannot be used, holds fewer than 8 films or nothing but blank ones, or `groups` does
            not fit to it.
        ImageReadError
            A file cannot be read.
        """
        with columns_kept(self):
            images = read_images(self, X, reset=True, allow_nan=False)
            films = self._films(images)
            n = len(films)
            if n < _LEAST:
                raise InputError(
                    f"X holds {n} film(s) (n_samples={n}); OutlierGate learns from {_LEAST} or more"
                )
            if not films.any():
                raise InputError(
                    f"all {n} images of X are blank (one gray value each), so there is nothing to "
                    "learn" + (f"; n_features={X.shape[1]}" if images.kind == "rows" else "")
                )
            patients = _patients(images, groups)
            rng = np.random.default_rng(draw_seed(self.random_state))
            altered, of_altered = retakes(films, -(-self.n_synthetic // 3), rng)
            odd, of_odd = oddities(films, self.n_synthetic, rng)
            looks = look(np.concatenate([films, altered, odd]))
            origin = np.concatenate([np.arange(n), of_altered, of_odd])
            is_film = np.arange(len(looks)) < n + len(altered)
            seed = int(rng.integers(2**31 - 1))

            offset = 0.0
            if not isinstance(self.contamination, str):
                aside = np.empty(n)
                folds = GroupKFold(min(_FOLDS, len(set(patients))), shuffle=True, random_state=seed)
                for _, test in folds.split(films, groups=patients):
                    kept = ~np.isin(origin, test)
                    model = _fitted(looks[kept], is_film[kept], seed)
                    aside[test] = model.decision_function(looks[test])
                offset = float(np.quantile(aside, self.contamination))
            self._model = _fitted(looks, is_film, seed)
            self._of_rows = images.kind == "rows"
            self.offset_ = offset
        return self

    def score_samples(self, X: Any) -> Array:
        """Say how much each picture looks like a radiograph.

        Parameters
        ----------
        X : paths or array
            Pictures, as :class:`skcxr.CXRClassifier` takes them.

        Returns
        -------
        ndarray of shape (n,)
            Log-odds of a radiograph against the outliers that were made: the higher, the more so.

        Raises
        ------
        InputError
            X cannot be used.
        ImageReadError
            A file cannot be read.
        """
        check_is_fitted(self)
        films = self._films(read_images(self, X, reset=False, allow_nan=False))
        scores: Array = self._model.decision_function(look(films))
        return scores

    def decision_function(self, X: Any) -> Array:
        """Say how far each picture is from being refused.

        Parameters
        ----------
        X : paths or array
            Pictures, as :class:`skcxr.CXRClassifier` takes them.

        Returns
        -------
        ndarray of shape (n,)
            ``score_samples(X) - offset_``: what is below 0 is refused.

        Raises
        ------
        InputError
            X cannot be used.
        ImageReadError
            A file cannot be read.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Array:
        """Say what passes.

        Parameters
        ----------
        X : paths or array
            Pictures, as :class:`skcxr.CXRClassifier` takes them.

        Returns
        -------
        ndarray of shape (n,), dtype int
            1 for what passes, -1 for what is refused.

        Raises
        ------
        InputError
            X cannot be used.
        ImageReadError
            A file cannot be read.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def _films(self, images: Images) -> Array:
        """The pictures as they are looked at, (n, 48, 48)."""
        dataset = ImageDataset(images.items, (SIDE, SIDE), decode=Decoder(self.memory))
        batches = [unit(pixels[:, 0].numpy()) for pixels, _ in BatchLoader(dataset, _BATCH)]
        return np.concatenate(batches)

    @property
    def _settings(self) -> SimpleNamespace:
        """What a new X is checked against; gray values may have any unit."""
        return SimpleNamespace(of_rows=self._of_rows, pixel_range=(0.0, 0.0))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _patients(images: Images, groups: Any) -> Array:
    """A patient for each image, as an integer."""
    n = len(images.items)
    if groups is None:
        if not isinstance(images.items, list):
            return np.arange(n)
        groups = patients_from_names(images.items)[0]
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise InputError(f"groups has shape {groups.shape}, but X holds {n} films: give one each")
    patients = np.unique(groups, return_inverse=True)[1]
    if patients.max() == 0:
        raise InputError(f"groups holds one patient for all {n} films; OutlierGate needs two")
    return patients


def _fitted(looks: Array, is_film: Array, seed: int) -> Pipeline:
    model = make_pipeline(
        StandardScaler(),
        PCA(0.9, svd_solver="covariance_eigh"),
        Nystroem(gamma=0.001, n_components=min(600, len(looks)), random_state=seed),
        StandardScaler(),
        LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000),
    )
    return model.fit(looks, is_film)
