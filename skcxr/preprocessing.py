"""Transformers from files to pixels, for scikit-learn pipelines."""

from __future__ import annotations

import os
import warnings
from numbers import Integral
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if

from skcxr._cache import Decoder
from skcxr._callbacks import CALLBACKS, CallbackSupportMixin
from skcxr._exceptions import ImageReadError, ImageReadWarning, InputError
from skcxr.batches import as_paths
from skcxr.images import INTERPOLATIONS, RESIZE_MODES, check_size, check_window, to_unit

__all__ = ["ImageLoader"]


def _gives_rows(loader: ImageLoader) -> bool:
    if loader.output != "rows":
        raise AttributeError(
            f"output={loader.output!r} gives images, which have no feature names and fit in no "
            'data frame; set output="rows"'
        )
    return True


class ImageLoader(CallbackSupportMixin, TransformerMixin, BaseEstimator):
    """Read image files into one array of gray pixels.

    It has nothing to learn: `fit` only checks the parameters. A pipeline of it and
    :class:`skcxr.CXRClassifier` gives the same probabilities as the classifier on the paths.

    Parameters
    ----------
    image_size : int or (int, int), default=128
        Side, or height and width, in pixels of every image.
    resize_mode : {"stretch", "pad", "crop"}, default="stretch"
        As in :func:`skcxr.read_image`.
    interpolation : {"hamming", "bilinear", "bicubic"}, default="hamming"
        The window of the antialiased resize. "hamming" is that of our own networks; a network with
        weights from elsewhere resizes files as these want it, and gets the same pixels from here
        with the same value (``skcxr.networks.input_spec(...).interpolation``).
    output : {"images", "rows"}, default="images"
        "images" gives ``(n, H, W)``, "rows" gives ``(n, H * W)``, which every scikit-learn
        estimator takes.
    n_jobs : int, default=None
        Number of threads; None is 1 and -1 as many as there are processors.
    memory : str, os.PathLike, joblib.Memory or None, default=None
        Folder in which decoded images are kept, one small file for each file and size, for other
        folds, searches and processes. A file that has changed is decoded again. The result is
        the same to the bit. Nothing is ever removed from it; delete it when you like.
    on_error : {"raise", "nan"}, default="raise"
        What becomes of a file that cannot be read: "raise" stops with its ImageReadError, "nan"
        gives an image of NaN and one :class:`skcxr.ImageReadWarning` that lists the files.
    window : int, (float, float) or None, default=0
        What of a DICOM file is shown from black to white, as in :func:`skcxr.read_image`.

    See Also
    --------
    skcxr.read_image : Read one file.
    skcxr.CXRClassifier : The classifier, which takes the same paths.

    Examples
    --------
    >>> import tempfile, os
    >>> from skcxr import ImageLoader, make_cxr_phantoms
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     phantoms = make_cxr_phantoms(
    ...         4, n_classes=2, random_state=0, save_to=os.path.join(folder, "phantoms")
    ...     )
    ...     ImageLoader(image_size=64).fit_transform(phantoms.data).shape
    (4, 64, 64)
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012  (scikit-learn's convention)
        "image_size": [Interval(Integral, 1, None, closed="left"), tuple, list],
        "resize_mode": [StrOptions(set(RESIZE_MODES))],
        "interpolation": [StrOptions(set(INTERPOLATIONS))],
        "output": [StrOptions({"images", "rows"})],
        "n_jobs": [None, Integral],
        "memory": [None, str, os.PathLike, HasMethods("cache")],
        "on_error": [StrOptions({"raise", "nan"})],
        "window": [None, Interval(Integral, 0, None, closed="left"), tuple, list],
    }

    def __init__(
        self,
        image_size: int | tuple[int, int] = 128,
        *,
        resize_mode: str = "stretch",
        interpolation: str = "hamming",
        output: str = "images",
        n_jobs: int | None = None,
        memory: Any = None,
        on_error: str = "raise",
        window: int | tuple[float, float] | None = 0,
    ) -> None:
        self.image_size = image_size
        self.resize_mode = resize_mode
        self.interpolation = interpolation
        self.output = output
        self.n_jobs = n_jobs
        self.memory = memory
        self.on_error = on_error
        self.window = window

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any = None, y: Any = None) -> ImageLoader:
        """Check the parameters.

        Parameters
        ----------
        X, y : ignored
            Here for scikit-learn's sake.

        Returns
        -------
        ImageLoader
            The transformer itself.

        Raises
        ------
        InvalidParameterError, InputError
            A parameter cannot be used.
        """
        self._shape()
        check_window(self.window)
        if CALLBACKS:  # a progress bar of the pipeline asks for no more than this
            context = self._init_callback_context()
            context.call_on_fit_task_begin(estimator=self, X=X, y=y)
            context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def transform(self, X: Any) -> np.ndarray[Any, Any]:
        """Read the files.

        Parameters
        ----------
        X : list, 1-D array, Series or one column of str or PathLike
            Paths of n image files.

        Returns
        -------
        ndarray of shape (n, H, W) or (n, H * W), dtype float32
            Pixels in [0, 1]; NaN for a file that cannot be read, with ``on_error="nan"``.

        Raises
        ------
        InputError
            X does not hold paths, `memory` is no folder that can be made, or `window` is no
            window.
        ImageReadError
            A file cannot be read, with ``on_error="raise"``.

        Warns
        -----
        ImageReadWarning
            Files cannot be read, with ``on_error="nan"``.
        """
        self._validate_params()
        height, width = self._shape()
        paths = as_paths(X)
        if paths is None:
            raise InputError(
                "ImageLoader reads files: X must be a list, 1-D array, Series or single column "
                f"of paths; got {type(X).__name__}"
            )
        images = np.empty((len(paths), height, width), np.float32)
        decode = Decoder(self.memory, self.interpolation, self.window)
        missing = []
        for index, path in enumerate(paths):
            held = decode.held(path, (height, width), self.resize_mode)
            if held is None:
                missing.append(index)
            else:
                to_unit(held, images[index])

        def read(index: int) -> tuple[int, str, str] | None:
            try:
                image = decode(paths[index], (height, width), self.resize_mode)
            except ImageReadError as error:
                if self.on_error == "raise":
                    raise
                images[index] = np.nan
                return index, error.path, error.reason
            to_unit(image, images[index])
            return None

        # Pillow decodes and resizes without the interpreter's lock: threads are enough
        if effective_n_jobs(self.n_jobs) == 1:
            outcomes = [read(index) for index in missing]
        else:
            outcomes = Parallel(n_jobs=self.n_jobs, require="sharedmem")(
                delayed(read)(index) for index in missing
            )
        failures = [outcome for outcome in outcomes if outcome]
        if failures:
            warnings.warn(ImageReadWarning(failures, len(paths)), stacklevel=2)
        return images if self.output == "images" else images.reshape(len(paths), -1)

    @available_if(_gives_rows)
    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray[Any, Any]:
        """Names of the columns that ``output="rows"`` gives.

        Parameters
        ----------
        input_features : ignored
            Here for scikit-learn's sake.

        Returns
        -------
        ndarray of shape (H * W,) of str
            "pixel_<row>_<column>", counted from 0.
        """
        height, width = self._shape()
        names = [f"pixel_{row}_{column}" for row in range(height) for column in range(width)]
        return np.array(names, dtype=object)

    def _shape(self) -> tuple[int, int]:
        shape = check_size(self.image_size, self.resize_mode)
        assert shape is not None  # None is not among the parameter's values
        return shape

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags
