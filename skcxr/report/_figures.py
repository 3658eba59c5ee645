"""Curves as SVG in the colours of the page; films as small JPEG files inside of it."""

from __future__ import annotations

import base64
import io
import re
from typing import Any, Literal

import numpy as np
from PIL import Image

from skcxr.images import resize

Array = np.ndarray[Any, Any]

_INK = "#123456"  # becomes the page's own colour of text
_SIDE = 224  # longest side of a film, in pixels
_RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.usetex": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.facecolor": "none",
    "legend.framealpha": 0.0,
    "legend.edgecolor": "none",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# told apart by people who see colours differently (Okabe and Ito), light enough on black
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")


def curves_svg(curves: Any, salt: str) -> str:
    """ROC and precision-recall of each class."""
    with _figure((8.6, 4.1), salt) as drawing:
        left, right = drawing.figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], ":", color=_INK, alpha=0.6, linewidth=1)
        for k, curve in enumerate(curves):
            colour = _COLOURS[k % len(_COLOURS)]
            style = "-" if k < len(_COLOURS) else "--"
            left.plot(curve.fpr, curve.tpr, style, color=colour, label=curve.roc_text)
            right.plot(
                curve.recall, curve.precision, style, color=colour, drawstyle="steps-post",
                label=curve.pr_text,
            )  # fmt: skip
        left.set(
            xlabel="1 - specificity", ylabel="sensitivity", title="ROC, each class against the rest"
        )
        right.set(xlabel="recall (sensitivity)", ylabel="precision", title="Precision and recall")
        for axis in (left, right):
            axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
            axis.legend(fontsize=7.5, loc="lower right" if axis is left else "lower left")
        return drawing.svg()


def reliability_svg(report: Any, salt: str) -> str:
    """How often what is said with a probability is true, by class."""
    from skcxr.inspection import ReliabilityDisplay

    if report.y_true.ndim == 2:
        n = int((~np.isnan(report.y_true.astype(float))).any(axis=0).sum())
    else:
        n = 1 + len(report.labels) - (len(report.labels) == 2)
    rows = -(-n // 3)
    with _figure((8.6, 3.8 * rows), salt, layout=None) as drawing:
        grid = drawing.figure.subplots(rows, 3, squeeze=False).ravel()
        drawing.figure.subplots_adjust(0.06, 0.27 / rows, 0.98, 1 - 0.07 / rows, 0.2, 0.65)
        for axis in grid[n:]:
            axis.set_axis_off()
        ReliabilityDisplay.from_predictions(
            report.y_true, report.y_score, labels=report.labels, groups=report.groups,
            random_state=0, ax=grid[:n],
        )  # fmt: skip
        return drawing.svg()


def audit_svg(report: Any, salt: str) -> str:
    """What an audit draws of itself, in the colours of the page."""
    from skcxr.audit._picture import draw

    with _figure((8.6, 4.6), salt) as drawing:
        draw(report, None, drawing.figure)
        return drawing.svg()


class _figure:  # noqa: N801  (used as a context)
    """A figure in the page's style; no pyplot, whose global state is the caller's."""

    def __init__(
        self,
        size: tuple[float, float],
        salt: str,
        layout: Literal["constrained"] | None = "constrained",
    ) -> None:
        self._size, self._salt, self._layout = size, salt, layout

    def __enter__(self) -> _figure:
        import matplotlib as mpl
        from matplotlib.figure import Figure

        style: Any = {**_RC, "svg.hashsalt": self._salt}
        self._context = mpl.rc_context(style)
        self._context.__enter__()
        self.figure = Figure(figsize=self._size, layout=self._layout)
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def svg(self) -> str:
        """The figure as an ``<svg>`` element."""
        file = io.StringIO()
        self.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        text = file.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
        # ids stand once on a page
        text = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{self._salt}-", text)
        text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
        text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
        return text.replace(_INK, "currentColor")


def film_jpeg(film: Array, heat: Array | None = None) -> str:
    """A film (H, W) in floats as a data URI; with heat, coloured where it is hot."""
    low, high = min(0.0, float(film.min())), max(1.0, float(film.max()))
    gray = (film - low) / (high - low)
    height, width = gray.shape
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(scale * height)), max(1, round(scale * width))
    gray = resize(gray.astype(np.float32), size) if scale < 1 else gray
    picture = np.repeat(np.clip(gray, 0, 1)[..., None], 3, axis=-1)
    if heat is not None:
        from matplotlib import colormaps

        stretched = np.clip(resize(heat.astype(np.float32), size), 0, 1)
        colour = colormaps["plasma"](stretched)[..., :3]
        alpha = 0.6 * stretched[..., None]
        picture = (1 - alpha) * picture + alpha * colour
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * picture).astype(np.uint8)).save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
