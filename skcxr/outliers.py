"""A gate for what is no upright chest radiograph."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from scipy import ndimage
from sklearn.base import BaseEstimator, OutlierMixin, _fit_context
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data

from skcxr._exceptions import InputError
from skcxr._patients import as_paths
from skcxr._seeds import draw_seed
from skcxr._threads import map_in_threads
from skcxr.images import read_image, resize
from skcxr.inspection._pictures import Films

__all__ = ["OutlierGate"]

Array = np.ndarray[Any, Any]

_SIDE = 48  # pixels that are looked at
_MOST = 500  # films that it learns from
_LEAST = 8
_POSES = 5  # of each film
_CHUNK = 256


class OutlierGate(OutlierMixin, BaseEstimator):
    """Refuse what is not an upright chest radiograph.

    It learns from your own radiographs, without weights and without outliers: these it makes
    itself, by turning, inverting, shuffling and cropping the films, and by drawing noise, shapes
    and pages, and learns to tell them apart [1]_ [2]_. Films that are moved, exposed, mirrored or
    framed a little differently count as radiographs.

    Parameters
    ----------
    contamination : float, default=0.005
        Share of radiographs like those of the fit that may be refused, in (0, 0.5]. Of other
        hospitals more are.
    random_state : int, RandomState instance or None, default=None
        Seed of everything that is drawn.

    Attributes
    ----------
    offset_ : float
        The score below which a picture is refused, found on films that were set aside in turn.
    n_features_in_ : int
        Columns of X, where the fit was on rows.

    See Also
    --------
    sklearn.ensemble.IsolationForest : Outliers of any kind of numbers.

    Notes
    -----
    It judges no quality and knows no body: what looks like a chest at 48 x 48 pixels passes. At
    most 500 films, drawn at random, are learnt from.

    References
    ----------
    .. [1] I. Golan, R. El-Yaniv, "Deep anomaly detection using geometric transformations", NeurIPS
       2018.
    .. [2] D. Hendrycks, M. Mazeika, T. Dietterich, "Deep anomaly detection with outlier exposure",
       ICLR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from skcxr import make_cxr_phantoms
    >>> from skcxr.outliers import OutlierGate
    >>> films = make_cxr_phantoms(60, image_size=64, random_state=0).data
    >>> gate = OutlierGate(contamination=0.1, random_state=0).fit(films[::2])
    >>> upside_down = films[1::2, ::-1]
    >>> bool((gate.predict(upside_down) == -1).mean() > 0.9)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        contamination: float = 0.005,
        *,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.contamination = contamination
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> OutlierGate:
        """Learn what the radiographs look like.

        Parameters
        ----------
        X : paths or array
            Radiographs, upright and not inverted, as :class:`skcxr.CXRClassifier` takes them; 8
            or more.
        y : ignored
            Here for scikit-learn's sake.

        Returns
        -------
        OutlierGate
            The fitted gate.

        Raises
        ------
        InputError
            There are fewer than 8 films, or X cannot be used.
        ImageReadError
            A file cannot be read.
        """
        found = _read(self, X, reset=True)
        n = _size(found)
        if n < _LEAST:
            raise InputError(
                f"X holds {n} film(s): n_samples={n}; OutlierGate learns from {_LEAST} or more"
            )
        rng = np.random.default_rng(draw_seed(self.random_state))
        rows = np.sort(rng.permutation(n)[:_MOST])
        films = _gray(found, rows)
        aside = np.empty(len(films))
        folds = KFold(3, shuffle=True, random_state=int(rng.integers(2**31 - 1)))
        for train, test in folds.split(films):
            aside[test] = _learn(films[train], rng).decision_function(_describe(films[test]))
        self._model = _learn(films, rng)
        self.offset_ = float(np.quantile(aside, self.contamination))
        return self

    def score_samples(self, X: Any) -> Array:
        """Say how much each picture looks like a radiograph.

        Parameters
        ----------
        X : paths or array
            Pictures, of the kind of the fit or another.

        Returns
        -------
        ndarray of shape (n,)
            The higher, the more so.

        Raises
        ------
        InputError
            X cannot be used.
        ImageReadError
            A file cannot be read.
        """
        check_is_fitted(self)
        found = _read(self, X, reset=False)
        n = _size(found)
        chunks = [np.arange(start, min(n, start + _CHUNK)) for start in range(0, n, _CHUNK)]
        scores = [self._model.decision_function(_describe(_gray(found, rows))) for rows in chunks]
        return np.concatenate(scores)

    def decision_function(self, X: Any) -> Array:
        """Say how far each picture is from being refused.

        Parameters
        ----------
        X : paths or array
            Pictures.

        Returns
        -------
        ndarray of shape (n,)
            Below 0 it is refused.

        Raises
        ------
        InputError
            X cannot be used.
        ImageReadError
            A file cannot be read.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Array:
        """Say which pictures pass.

        Parameters
        ----------
        X : paths or array
            Pictures.

        Returns
        -------
        ndarray of shape (n,)
            1 for what passes, -1 for what is refused.

        Raises
        ------
        InputError
            X cannot be used.
        ImageReadError
            A file cannot be read.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)


def _read(gate: OutlierGate, X: Any, *, reset: bool) -> list[str] | Films:
    """Paths or pictures; rows are checked as scikit-learn does."""
    paths = as_paths(X)
    if paths is not None:
        return paths
    if getattr(X, "ndim", 2) <= 2:
        X = validate_data(gate, X, reset=reset, dtype=np.float64)
    elif not np.isfinite(np.asarray(X, dtype=np.float64)).all():
        raise InputError("X holds pixels that are NaN or infinite")
    return Films(X)


def _size(found: list[str] | Films) -> int:
    return found.n if isinstance(found, Films) else len(found)


def _gray(found: list[str] | Films, rows: Array) -> Array:
    """Films at `rows` as gray squares (n, 48, 48), from 0 to 1."""
    if isinstance(found, Films):
        films = [_square(found.film(row)) for row in rows.tolist()]
    else:
        films = map_in_threads(lambda row: read_image(found[row], size=_SIDE), rows.tolist())
    return _stretched(np.asarray(films, dtype=np.float64))


def _square(film: Array) -> Array:
    return resize(np.ascontiguousarray(film, dtype=np.float32), (_SIDE, _SIDE))


def _learn(films: Array, rng: np.random.Generator) -> Any:
    """A model that tells films in many poses from what they are not."""
    normal = np.concatenate([films, *(_mild(films, rng) for _ in range(_POSES))])
    odd = _oddities(films, rng)
    described = np.vstack([_describe(normal), _describe(odd)])
    n_components = min(120, *described.shape)
    model = make_pipeline(
        StandardScaler(),
        PCA(n_components, svd_solver="full"),
        SVC(C=3.0, class_weight="balanced", random_state=0),
    )
    return model.fit(described, np.repeat([1, 0], [len(normal), len(odd)]))


def _describe(films: Array) -> Array:
    """Coarse pixels, oriented gradients in cells, and how symmetric and rough they are."""
    n = len(films)
    smooth = ndimage.gaussian_filter(films, (0, 1, 1))
    coarse = smooth.reshape(n, 16, 3, 16, 3).mean(axis=(2, 4)).reshape(n, -1)
    blurred = ndimage.gaussian_filter(films, (0, 0.7, 0.7))
    dy, dx = np.gradient(blurred, axis=(1, 2))
    slope = np.hypot(dy, dx)
    turn = (np.arctan2(dy, dx) / (2 * np.pi) + 0.5) * 8
    cells = []
    for direction in range(8):
        away = np.abs(turn - direction)
        share = np.maximum(0, 1 - np.minimum(away, 8 - away)) * slope
        cells.append(share.reshape(n, 6, 8, 6, 8).sum(axis=(2, 4)))
    gradients = np.stack(cells, axis=-1)
    gradients /= np.sqrt((gradients**2).sum(axis=-1, keepdims=True)) + 0.3
    whole = [
        (films - smooth).std(axis=(1, 2)),
        slope.mean(axis=(1, 2)),
        np.abs(films - films[:, :, ::-1]).mean(axis=(1, 2)),
    ]
    return np.hstack([coarse, gradients.reshape(n, -1), np.stack(whole, axis=1)])


def _mild(films: Array, rng: np.random.Generator) -> Array:
    """The films as another hospital might take them."""
    changed = []
    middle = np.full(2, (_SIDE - 1) / 2)
    for film in films:
        angle = np.deg2rad(rng.uniform(-12, 12))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn @ np.diag(rng.uniform(0.85, 1.12, 2))
        shift = middle - matrix @ middle + rng.uniform(-3, 3, 2)
        mode = "nearest" if rng.random() < 0.5 else "constant"
        new = ndimage.affine_transform(film, matrix, shift, order=1, mode=mode)
        if rng.random() < 0.3:
            new = new[:, ::-1]
        new = np.clip(new, 0, 1) ** rng.uniform(0.6, 1.6)
        if rng.random() < 0.3:
            new = ndimage.gaussian_filter(new, rng.uniform(0, 1))
        if rng.random() < 0.3:
            new = new + rng.normal(0, 0.03, new.shape)
        if rng.random() < 0.1:
            width = int(rng.integers(1, 4))
            new[:width] = new[-width:] = 1
            new[:, :width] = new[:, -width:] = 1
        changed.append(new)
    return np.array(changed)


def _oddities(films: Array, rng: np.random.Generator) -> Array:
    """What is no upright radiograph: made of the films, and drawn."""
    n = len(films)
    return np.concatenate(
        [
            *(np.rot90(_mild(films, rng), k, (1, 2)) for k in (1, 2, 3)),
            _mild(films, rng)[:, ::-1],
            1 - _mild(films, rng),
            1 - np.rot90(_mild(films, rng), 2, (1, 2)),
            _shuffled(films, 2, rng),
            _shuffled(films, 4, rng),
            _enlarged(films, rng),
            _noise(n, rng),
            _shapes(n, rng),
            _pages(-(-n // 2), rng),
        ]
    )


def _shuffled(films: Array, k: int, rng: np.random.Generator) -> Array:
    """The films in k x k pieces, in another order."""
    side = _SIDE // k
    pieces = films.reshape(-1, k, side, k, side).swapaxes(2, 3).reshape(-1, k * k, side, side)
    mixed = np.array([piece[rng.permutation(k * k)] for piece in pieces])
    return mixed.reshape(-1, k, k, side, side).swapaxes(2, 3).reshape(films.shape)


def _enlarged(films: Array, rng: np.random.Generator) -> Array:
    """Small parts of the films."""
    parts = []
    for film in films:
        side = int(rng.integers(12, 22))
        top, left = rng.integers(0, _SIDE - side, 2)
        parts.append(_square(film[top : top + side, left : left + side]))
    return np.array(parts)


def _noise(n: int, rng: np.random.Generator) -> Array:
    """Noise, from white to smooth."""
    frequency = np.fft.fftfreq(_SIDE)
    radius = np.hypot(frequency[:, None], frequency)
    radius[0, 0] = 1
    power = rng.choice([0, 0.5, 1, 1.5, 2, 3], n)[:, None, None]
    waves = np.fft.fft2(rng.normal(size=(n, _SIDE, _SIDE))) * radius**-power
    return _stretched(np.real(np.fft.ifft2(waves)))


def _shapes(n: int, rng: np.random.Generator) -> Array:
    """Discs and boxes on top of each other, as things stand in photographs."""
    y, x = np.mgrid[:_SIDE, :_SIDE]
    drawn = []
    for _ in range(n):
        picture = np.full((_SIDE, _SIDE), rng.random())
        for _ in range(rng.integers(3, 60)):
            (top, left), size = rng.random(2) * _SIDE, rng.uniform(2, _SIDE / 2)
            if rng.random() < 0.5:
                inside = (y - top) ** 2 + (x - left) ** 2 < size**2
            else:
                inside = (abs(y - top) < size) & (abs(x - left) < size * rng.uniform(0.2, 2))
            picture[inside] = rng.random()
        picture += rng.normal(0, 0.02, picture.shape)
        drawn.append(ndimage.gaussian_filter(picture, rng.uniform(0, 1.5)))
    return _stretched(np.array(drawn))


def _pages(n: int, rng: np.random.Generator) -> Array:
    """Lines of words, dark on light or light on dark."""
    drawn = []
    for _ in range(n):
        page = np.zeros((_SIDE, _SIDE))
        height = int(rng.integers(2, 7))
        for top in range(int(rng.integers(0, 5)), _SIDE - 1, height):
            left = int(rng.integers(0, 8))
            while left < _SIDE - 3:
                width = int(rng.integers(1, 9))
                page[top : top + max(1, height // 2), left : left + width] = rng.uniform(0.6, 1)
                left += width + int(rng.integers(1, 4))
        page = 1 - page if rng.random() < 0.5 else page
        drawn.append(ndimage.gaussian_filter(page, rng.uniform(0, 1)))
    return _stretched(np.array(drawn))


def _stretched(pictures: Array) -> Array:
    """From black to white, as films are looked at."""
    low, high = np.percentile(pictures, [2, 98], axis=(1, 2), keepdims=True)
    return np.clip((pictures - low) / np.maximum(high - low, 1e-6), 0, 1)
