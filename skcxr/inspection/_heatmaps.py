"""Films beside the same films with a heatmap over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from skcxr._exceptions import InputError
from skcxr._notice import RESEARCH_ONLY
from skcxr.inspection._answers import Answers
from skcxr.inspection._panels import film_panel, panels, remark, room, shortened
from skcxr.inspection._pictures import Films

Array = np.ndarray[Any, Any]

_MOST_FILMS = 24  # in one picture
_PAIRS = 3  # in one row


class HeatmapDisplay:
    """What displays of heatmaps share. Internal."""

    legend = "Colour: from none to the most of each film."

    def __init__(
        self,
        images: Sequence[Array],
        heatmaps: Array,
        *,
        labels: Sequence[Any] | Array,
        probabilities: Sequence[float] | Array,
        targets: Sequence[Any] | Array | None = None,
        target_probabilities: Sequence[float] | Array | None = None,
        y_true: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.images = images
        self.heatmaps = heatmaps
        self.labels = labels
        self.probabilities = probabilities
        self.targets = targets
        self.target_probabilities = target_probabilities
        self.y_true = y_true
        self.names = names

    @classmethod
    def _of(cls, pictures: Films, heatmaps: Array, answers: Answers, y: Any) -> Self:
        labels, probabilities = answers.pick(answers.predicted)
        targets, target_probabilities = answers.pick(answers.target)
        return cls(
            [pictures.film(i) for i in range(pictures.n)],
            heatmaps,
            labels=labels,
            probabilities=probabilities,
            targets=targets,
            target_probabilities=target_probabilities,
            y_true=_truths(y, answers),
            names=pictures.names,
        )

    def plot(
        self, ax: Any = None, *, cmap: str = "plasma", alpha: float = 0.6, n_columns: int = 3
    ) -> Self:
        """Plot each film, and beside it the film with its heatmap.

        Parameters
        ----------
        ax : matplotlib Axes, array of Axes or None, default=None
            One Axes, whose place is divided; two for each film, film by film; or None for a new
            figure.
        cmap : str, default="plasma"
            Name of a colour map of matplotlib.
        alpha : float, default=0.6
            How much of the film the highest heat hides, in [0, 1]; no heat hides nothing.
        n_columns : int, default=3
            Films in a row, at most.

        Returns
        -------
        Display
            The display itself.

        Raises
        ------
        InputError
            `ax` holds another number of Axes than there are panels, or `alpha` or `n_columns`
            is out of range.
        """
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha={alpha!r} is not in [0, 1]")
        if n_columns < 1:
            raise InputError(f"n_columns={n_columns!r} must be 1 or more")
        n = len(self.images)
        said = [self._said(k) for k in range(n)]
        if self.y_true is None:
            plain: list[list[str]] = [[] for _ in range(n)]
        else:
            plain = [["true", str(label)] for label in self.y_true]
        self.axes_ = draw_films(
            ax, self.images, plain, self.names, f"{self.legend} {RESEARCH_ONLY}", n_columns,
            self.heatmaps, said, cmap, alpha,
        )  # fmt: skip
        self.figure_ = self.axes_[0, 0].figure
        return self

    def _said(self, k: int) -> list[str]:
        """Lines over film k."""
        lines = [f"predicted, {self.probabilities[k]:.2f}", str(self.labels[k])]
        if self.targets is not None and self.targets[k] != self.labels[k]:
            other = self.target_probabilities
            lines.append(
                f"heat: {self.targets[k]}" + ("" if other is None else f", {other[k]:.2f}")
            )
        return lines


def draw_films(
    ax: Any,
    films: Sequence[Array],
    titles: list[list[str]],
    names: Sequence[str] | None,
    text: str,
    n_columns: int,
    heatmaps: Array | None = None,
    said: list[list[str]] | None = None,
    cmap: str = "plasma",
    alpha: float = 0.6,
) -> Array:
    """Draw films with their titles, each beside itself under its heatmap where there is one.

    The panels are of shape (n, 1) or (n, 2).
    """
    import matplotlib

    n, wide = len(films), 1 if heatmaps is None else 2
    rows = -(-n // n_columns)
    columns = -(-n // rows)  # as even as can be
    lines = 1 + max(map(len, [*titles, *(said or [])]))
    shape = max(film.shape[0] / film.shape[1] for film in films), 1.0
    if ax is None or np.ndim(ax) == 0:
        places = panels(ax, rows, wide * columns, shape, lines).reshape(-1, wide)
        for axis in places[n:].ravel():
            axis.set_axis_off()
    else:
        places = panels(ax, n, wide, shape)
    places = places[:n]
    colours = matplotlib.colormaps[cmap]
    for k, film in enumerate(films):
        plain = places[k, 0]
        film_panel(plain, film)
        plain.set_title("\n".join(titles[k]), fontsize=8, loc="left")
        if names is not None:
            name = shortened(names[k], 26 if ax is None else room(plain))
            plain.set_xlabel(name, fontsize=7, loc="left")
        if heatmaps is not None:
            over = places[k, 1]
            film_panel(over, film)
            painted = colours(heatmaps[k])
            painted[..., 3] = alpha * np.clip(1.5 * heatmaps[k], 0, 1)  # the cold stays as it is
            height, width = film.shape
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            over.imshow(painted, extent=extent, interpolation="bilinear")
            over.set_title("\n".join(said[k] if said else []), fontsize=8, loc="left")
    remark(places, text, own=ax is None)
    return places


def _truths(y: Any, answers: Answers) -> list[str] | None:
    if y is None:
        return None
    truth = np.asarray(y)
    if len(truth) != len(answers.scores):
        raise InputError(f"X holds {len(answers.scores)} images but y has {len(truth)} entries")
    if not answers.multi_label:
        return [str(label) for label in truth.tolist()]
    if truth.shape != answers.scores.shape:
        raise InputError(f"y has shape {truth.shape} for findings {answers.names.tolist()}")
    names, _ = answers.pick(answers.target)
    values = truth[np.arange(len(truth)), answers.target].astype(float)
    said = {1.0: "{}", 0.0: "no {}"}
    return [
        said.get(float(value), "{} not labelled").format(name)
        for name, value in zip(names.tolist(), values, strict=True)
    ]


def check_number(n: int) -> None:
    """Not more films than a picture holds."""
    if n > _MOST_FILMS:
        raise InputError(
            f"X holds {n} images, and each gets two panels; pass up to {_MOST_FILMS}: X[:12]"
        )


def to_unit_heat(maps: Array) -> Array:
    """Maps (n, h, w) without what speaks against, each divided by its maximum; 0 stays 0."""
    heat = np.maximum(maps, 0)
    most = heat.max(axis=(1, 2), keepdims=True)
    return np.asarray(heat / np.where(most > 0, most, 1), dtype=np.float32)
