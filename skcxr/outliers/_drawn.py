"""What the gate learns from: films taken a little differently, and pictures that are none.

    film -> another exposure, position, frame           still a radiograph
    film -> turned, inverted, in pieces, a part of it   none any more
    nothing -> noise, scenes, pages, limbs              never was one

Pictures are (48, 48), gray, about 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from skcxr.outliers._looks import SIDE, unit

Array = np.ndarray[Any, Any]
Rng = np.random.Generator

_MIDDLE = np.full(2, (SIDE - 1) / 2)
_Y, _X = np.mgrid[:SIDE, :SIDE] / SIDE


def retake(film: Array, rng: Rng) -> Array:
    """The film as another hospital, day or printer might have made it."""
    angle = np.deg2rad(rng.uniform(-12, 12))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag(rng.uniform(0.75, 1.15) * np.exp(rng.normal(0, 0.06, 2)))
    shift = _MIDDLE - matrix @ _MIDDLE + rng.uniform(-0.06, 0.06, 2) * SIDE
    beyond = ("nearest", "constant")[rng.integers(2)]
    ground = float(rng.random() < 0.33)
    new = ndimage.affine_transform(film, matrix, shift, order=1, mode=beyond, cval=ground)
    if rng.random() < 0.3:
        new = new[:, ::-1]
    new = np.clip(new, 0, 1) ** np.exp(rng.normal(0, 0.35))
    if rng.random() < 0.3:  # less contrast between lungs and belly
        new = new - rng.uniform(0.2, 0.7) * ndimage.gaussian_filter(new, rng.uniform(5, 12))
    if rng.random() < 0.3:
        new = new + rng.normal(0, 0.15) * (_Y - 0.5) + rng.normal(0, 0.15) * (_X - 0.5)
    sharpness = rng.random()
    if sharpness < 0.3:
        new = ndimage.gaussian_filter(new, rng.uniform(0, 1))
    elif sharpness < 0.5:
        new = new + rng.uniform(0.2, 0.8) * (new - ndimage.gaussian_filter(new, 1))
    if rng.random() < 0.3:
        new = new + rng.normal(0, rng.uniform(0, 0.05), new.shape)
    if rng.random() < 0.15:
        _frame(new, rng)
    if rng.random() < 0.25:
        _mark(new, rng)
    return new.astype(np.float32)


def _frame(film: Array, rng: Rng) -> None:
    """Bars along some of the sides, in place."""
    gray = float(rng.integers(2))
    for side in range(4):
        if rng.random() < 0.6:
            np.rot90(film, side)[: rng.integers(1, 1 + SIDE // 10)] = gray


def _mark(film: Array, rng: Rng) -> None:
    """A lead letter or a label, in place."""
    height, width = rng.integers(2, 1 + SIDE // 8, 2)
    top, left = rng.integers(0, SIDE // 5, 2)
    corner = film[:: rng.choice([1, -1]), :: rng.choice([1, -1])]
    corner[top : top + height, left : left + width] = float(rng.random() < 0.8)


# --------------------------------------------------------------------------------------------
# made of films
# --------------------------------------------------------------------------------------------


def _turned(film: Array, rng: Rng) -> Array:
    return np.rot90(film, int(rng.integers(1, 4)))


def _upside_down(film: Array, rng: Rng) -> Array:
    return np.rot90(film, 2)


def _flipped(film: Array, rng: Rng) -> Array:
    return film[::-1]


def _tilted(film: Array, rng: Rng) -> Array:
    beyond = ("nearest", "constant", "reflect")[rng.integers(3)]
    return ndimage.rotate(film, rng.uniform(30, 330), reshape=False, order=1, mode=beyond)


def _inverted(film: Array, rng: Rng) -> Array:
    return 1 - film


def _inverted_and_turned(film: Array, rng: Rng) -> Array:
    return 1 - np.rot90(film, int(rng.integers(1, 4)))


def _in_pieces(film: Array, rng: Rng) -> Array:
    k = int(rng.integers(2, 5))
    side = SIDE // k
    pieces = film.reshape(k, side, k, side).swapaxes(1, 2).reshape(k * k, side, side)
    order = rng.permutation(k * k)
    if np.mean(order == np.arange(k * k)) > 0.5:
        order = np.roll(order, 1)
    return pieces[order].reshape(k, k, side, side).swapaxes(1, 2).reshape(SIDE, SIDE)


def _enlarged(film: Array, rng: Rng) -> Array:
    side = rng.uniform(0.2, 0.45)
    start = rng.uniform(0, 1 - side, 2) * SIDE
    return ndimage.affine_transform(film, np.full(2, side), start, order=1, mode="nearest")


def _scrambled(film: Array, rng: Rng) -> Array:
    """Noise with the film's power at every frequency."""
    noise = np.angle(np.fft.fft2(rng.normal(size=film.shape)))
    power = np.abs(np.fft.fft2(film - film.mean()))
    return np.real(np.fft.ifft2(power * np.exp(1j * noise)))


# --------------------------------------------------------------------------------------------
# made of nothing
# --------------------------------------------------------------------------------------------


def _noise(rng: Rng) -> Array:
    """From white to cloudy, with grain or without."""
    stretch = np.exp(rng.normal(0, 0.5))
    frequency = np.fft.fftfreq(SIDE)
    radius = np.hypot(frequency[:, None] * stretch, frequency / stretch)
    radius[0, 0] = 1
    waves = np.fft.fft2(rng.normal(size=(SIDE, SIDE))) * radius ** -rng.choice([0, 0.5, 1, 1.5, 3])
    return unit(np.real(np.fft.ifft2(waves))[None])[0]


def _inside(rng: Rng, spread: float) -> Array:
    """Where a disc, a box or a triangle lies."""
    y, x = 0.5 + spread * (rng.random(2) - 0.5)
    size, angle, flatness = spread * rng.uniform(0.04, 0.5), rng.uniform(0, np.pi), rng.random()
    along = (_Y - y) * np.cos(angle) + (_X - x) * np.sin(angle)
    across = (_X - x) * np.cos(angle) - (_Y - y) * np.sin(angle)
    kind, width = rng.integers(3), size * (0.15 + 0.85 * flatness)
    if kind == 0:
        return (along / size) ** 2 + (across / width) ** 2 < 1
    if kind == 1:
        return (abs(along) < size) & (abs(across) < width)
    return (along > -size) & (across > -size) & (along + across * size / width < size)


def _scene(rng: Rng) -> Array:
    """Things on top of each other, as in photographs, drawings and icons."""
    spread = 0.6 if rng.random() < 0.5 else 1.0  # one thing in the middle, or all over
    scene = np.full((SIDE, SIDE), rng.choice([0, 1, rng.random()]))
    if spread == 1:
        scene += rng.normal(0, 0.3) * (_Y - 0.5) + rng.normal(0, 0.3) * (_X - 0.5)
    for _ in range(int(np.exp(rng.uniform(0, 4.2 if spread == 1 else 2.2)))):
        inside = _inside(rng, spread)
        scene[inside] = rng.random() + rng.normal(0, 0.4) * (_Y[inside] - 0.5)
    if rng.random() < 0.25:
        scene = np.where(_X < 0.5, scene, scene[:, ::-1])
    if rng.random() < 0.25:
        scene = scene + rng.uniform(0, 0.6) * _noise(rng)
    return ndimage.gaussian_filter(scene, rng.uniform(0, 1.2))


def _page(rng: Rng) -> Array:
    """Lines of words."""
    page = np.zeros((SIDE, SIDE))
    height, margin = int(rng.integers(2, 7)), int(rng.integers(0, 10))
    for top in range(int(rng.integers(0, 12)), SIDE - 1 - int(rng.integers(0, 12)), height):
        left, end = margin, SIDE - 3 - margin
        if rng.random() < 0.3:  # the last line of a paragraph
            end -= int(rng.integers(0, 20))
        while left < end:
            width = int(rng.integers(1, 10))
            page[top : top + max(1, height // 2), left : min(left + width, end)] = 1
            left += width + int(rng.integers(1, 4))
    if rng.random() < 0.3:
        page = 0.7 * page + 0.3 * _noise(rng)
    page = 1 - page if rng.random() < 0.5 else page
    return ndimage.gaussian_filter(page, rng.uniform(0.2, 1))


def _limb(rng: Rng) -> Array:
    """Bones in soft tissue on black: one limb, or the fingers of a hand."""
    limb = np.zeros((SIDE, SIDE))
    n = int(rng.integers(1, 7))
    palm = 0.5 + rng.uniform(-0.15, 0.15, 2)
    towards, spread = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 2.4)
    for finger in range(n):
        angle = towards + spread * ((finger + 0.5) / n - 0.5)
        direction = np.array([np.cos(angle), np.sin(angle)])
        y, x = palm - direction * rng.uniform(0, 0.2)
        length, width = rng.uniform(0.3, 0.9), rng.uniform(0.03, 0.2 if n < 3 else 0.1)
        along = np.clip((_Y - y) * direction[0] + (_X - x) * direction[1], 0, length)
        away = np.hypot(_Y - y - along * direction[0], _X - x - along * direction[1]) / width
        joints = 0.6 + 0.4 * np.abs(np.cos(np.pi * along / length * rng.integers(2, 5)))
        tissue = rng.uniform(0.2, 0.4) * _thick(away)
        bone = rng.uniform(0.3, 0.6) * _thick(away / rng.uniform(0.4, 0.7)) * joints
        limb = np.maximum(limb, tissue + bone)
    if n > 2:
        away = np.hypot(_Y - palm[0], _X - palm[1]) / rng.uniform(0.1, 0.22)
        limb = np.maximum(limb, 0.6 * _thick(away))
    limb = 1 - limb if rng.random() < 0.2 else limb
    limb = limb + rng.normal(0, 0.02, limb.shape)
    return ndimage.gaussian_filter(limb, rng.uniform(0, 0.8))


def _thick(away: Array) -> Array:
    """Thickness of a rod, by the distance from its axis in radii."""
    return np.sqrt(np.clip(1 - away**2, 0, 1))


# --------------------------------------------------------------------------------------------

_OF_FILMS: tuple[Callable[[Array, Rng], Array], ...] = (
    _turned, _turned, _upside_down, _flipped, _tilted, _inverted, _inverted, _inverted_and_turned,
    _inverted_and_turned, _in_pieces, _in_pieces, _in_pieces, _enlarged, _scrambled,
)  # fmt: skip
_OF_NOTHING = (_noise, _scene, _scene, _scene, _scene, _page, _limb)


def retakes(films: Array, n: int, rng: Rng) -> tuple[Array, Array]:
    """Films taken a little differently.

    Parameters
    ----------
    films : ndarray of shape (n_films, 48, 48)
        Radiographs.
    n : int
        Number of pictures; the films take turns.
    rng : numpy.random.Generator
        What draws.

    Returns
    -------
    pictures : ndarray of shape (n, 48, 48)
        The pictures.
    origin : ndarray of shape (n,)
        Index of the film that each is made of.
    """
    origin = np.resize(rng.permutation(len(films)), n)
    return np.array([retake(films[i], rng) for i in origin]), origin


def oddities(films: Array, n: int, rng: Rng) -> tuple[Array, Array]:
    """Pictures that are no upright radiographs, every kind in turn.

    Parameters
    ----------
    films : ndarray of shape (n_films, 48, 48)
        Radiographs.
    n : int
        Number of pictures.
    rng : numpy.random.Generator
        What draws.

    Returns
    -------
    pictures : ndarray of shape (n, 48, 48)
        The pictures.
    origin : ndarray of shape (n,)
        Index of the film that each is made of; -1 where it is made of none.
    """
    origin = np.resize(rng.permutation(len(films)), n)
    pictures = np.empty((n, SIDE, SIDE), np.float32)
    for k in range(n):
        kind = k % (len(_OF_FILMS) + len(_OF_NOTHING))
        if kind < len(_OF_FILMS):
            pictures[k] = _OF_FILMS[kind](retake(films[origin[k]], rng), rng)
        else:
            pictures[k] = _OF_NOTHING[kind - len(_OF_FILMS)](rng)
            origin[k] = -1
    return pictures, origin
