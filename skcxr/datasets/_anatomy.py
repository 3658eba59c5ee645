"""The body behind the phantoms: how much every ray of a frontal radiograph is attenuated.

A `Patient` is drawn once, a `View` for every image of that patient, and `attenuation` adds
up what lies on the way of each ray. Lengths are in half image widths, u to the viewer's right
(the patient's left), v downwards, both 0 in the middle; thicknesses along the ray are in
decimetres.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, Any]
Generator = np.random.Generator

SOFT = 1.7  # attenuation of water and soft tissue, per decimetre
BONE = 3.2  # what bone adds to it
AIR_IN_LUNG = 0.76  # share of an aerated lung that is air

# side, then in coordinates of the lung: level of the centre (0 apex, 1 diaphragm), half height,
# lateral place (0 mediastinum, 1 chest wall), and where the horizontal fissure bounds the lobe
LOBES = {
    "right upper": (-1, 0.26, 0.26, 0.45, "below"),
    "right middle": (-1, 0.72, 0.22, 0.20, "above"),
    "right lower": (-1, 0.84, 0.26, 0.60, ""),
    "left upper": (1, 0.30, 0.28, 0.50, ""),
    "lingula": (1, 0.64, 0.22, 0.50, ""),
    "left lower": (1, 0.84, 0.26, 0.70, ""),
}


@dataclass(frozen=True)
class Patient:
    """What stays the same in all images of a person."""

    width: float  # of the body, relative to the average
    height: float
    fat: float  # soft tissue around the ribs, relative to the average
    depth: float  # of the chest, front to back, dm
    heart: float  # size, relative to the average
    heart_tilt: float  # radians
    domes: tuple[float, float]  # v of the right and left diaphragm
    chest: float  # half width inside the ribs
    apex: float  # v of the top of the lungs
    rib_gap: float
    rib_phase: float
    rib_drop: tuple[float, float]  # how far ribs fall from back to side, from side to front
    bone: float  # density, relative to the average
    clavicle: tuple[float, float, float]  # v of the medial end, rise, bend
    trachea: float  # u
    knob: float  # radius of the aortic knob
    breast: float  # thickness, 0 for none, dm
    stomach: tuple[float, ...]  # gas bubble: u, v below the dome, radii
    arm: float  # u of the shoulder joint
    spread: float  # how far the arms stand off, slope
    markings: float  # prominence of the vessels
    vessels: tuple[Array, ...]  # points (u, v, weight) of large, middle and small branches
    seed: int  # of the finding


@dataclass(frozen=True)
class View:
    """What changes from one image of a person to the next."""

    angle: float  # radians
    scale: float
    shift: tuple[float, float]
    turn: float  # of the body about its long axis: front structures move sideways
    breath: float  # how far the diaphragm stands lower than average
    severity: float  # of a finding, about 1
    seed: int  # of the fine texture


def draw_patient(rng: Generator) -> Patient:
    """Draw a person."""
    uniform = rng.uniform
    right = uniform(0.34, 0.48)  # the right dome stands higher, the liver is below it
    return Patient(
        width=uniform(0.93, 1.06),
        height=uniform(0.95, 1.07),
        fat=uniform(0.6, 1.6),
        depth=uniform(2.0, 2.5),
        heart=uniform(0.86, 1.14),
        heart_tilt=uniform(0.45, 0.85),
        domes=(right, right + uniform(0.03, 0.09)),
        chest=uniform(0.7, 0.79),
        apex=uniform(-0.76, -0.68),
        rib_gap=uniform(0.128, 0.148),
        rib_phase=uniform(0.0, 1.0),
        rib_drop=(uniform(0.18, 0.28), uniform(0.26, 0.4)),
        bone=uniform(0.75, 1.2),
        clavicle=(uniform(-0.58, -0.5), uniform(0.12, 0.3), uniform(0.02, 0.05)),
        trachea=uniform(-0.03, 0.01),
        knob=uniform(0.075, 0.115),
        breast=max(0.0, uniform(-0.45, 0.45)),
        stomach=tuple(uniform((0.25, 0.07, 0.03, 0.02), (0.42, 0.12, 0.14, 0.06))),
        arm=uniform(0.92, 1.02),
        spread=uniform(0.04, 0.3),
        markings=uniform(0.75, 1.15),
        vessels=_vessels(rng),
        seed=int(rng.integers(2**31)),
    )


def draw_view(rng: Generator) -> View:
    """Draw one exposure of a person."""
    uniform = rng.uniform
    return View(
        angle=rng.normal(0, 0.03),
        scale=uniform(0.92, 1.05),
        shift=(uniform(-0.04, 0.04), uniform(-0.05, 0.05)),
        turn=rng.normal(0, 0.02),
        breath=uniform(-0.05, 0.05),
        severity=uniform(0.8, 1.25),
        seed=int(rng.integers(2**31)),
    )


@dataclass(frozen=True)
class Lungs:
    """Where the lungs are on the image."""

    u: Array  # coordinates of the body
    v: Array
    side: Array  # -1 in the patient's right half (viewer's left), 1 in the left
    path: Array  # length of a ray within lung, dm; 0 outside the lungs
    lateral: Array  # 0 at the mediastinum to 1 at the chest wall
    level: Array  # 0 at the apex to 1 at the diaphragm


def attenuation(
    patient: Patient, view: View, size: int, finding: str = "Healthy", strength: float = 1.0
) -> tuple[Array, Lungs]:
    """Add up the attenuation of every ray.

    A finding is fluid where the lung has air, so it changes nothing outside the lungs.

    Returns
    -------
    total : ndarray of shape (size, size), dtype float32
        The natural logarithm of open beam over transmitted beam; 0 is air alone.
    lungs : Lungs
        Where the lungs are.
    """
    u, v = _body_coordinates(patient, view, size)
    x = np.abs(u)
    front = u - view.turn  # structures in front of the spine move when the body turns
    body = _body(patient, x, v, front)
    chest, lungs = _lungs(patient, view, u, v, x, front)
    texture = _cloud(np.random.default_rng(view.seed), u, v, 0.25)  # gut, muscle, fat
    soft = np.maximum(body * (1 + 0.02 * texture), 0.35 * chest)
    path = np.minimum(lungs.path, 0.92 * soft)
    inside = np.minimum(path / (0.5 * patient.depth), 1.0)

    trees = [_splat(points, patient, view, size, width) for points, width in
             zip(patient.vessels, (0.013, 0.008, 0.005), strict=True)]  # fmt: skip
    blood = 0.38 * patient.markings * inside * sum(trees)
    fill: Array | float = 0.0
    if finding != "Healthy":
        full = _FINDINGS[finding](patient, view, lungs, trees)
        fill = np.minimum(full * np.float32(view.severity * strength), 0.93)
    air = AIR_IN_LUNG * path * (1.0 - fill) + _air_elsewhere(patient, view, v, front)
    total = SOFT * (soft - np.minimum(air, 0.9 * soft)) + 0.55 * blood * (1.0 - 0.85 * fill)
    total += BONE * patient.bone * _bones(patient, u, v, x, front) * (soft > 0.02)
    return total.astype(np.float32), lungs


# ------------------------------------------------------------------------------- geometry


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[Array, Array]:
    """Pixel centres from -1 to 1: columns (1, size) and rows (size, 1)."""
    centres = ((np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
    return centres[None, :], centres[:, None]


def _body_coordinates(patient: Patient, view: View, size: int) -> tuple[Array, Array]:
    columns, rows = _grid(size)
    cos, sin = np.float32(np.cos(view.angle)), np.float32(np.sin(view.angle))
    columns, rows = columns - np.float32(view.shift[0]), rows - np.float32(view.shift[1])
    u = (cos * columns + sin * rows) * np.float32(1.0 / (view.scale * patient.width))
    v = (cos * rows - sin * columns) * np.float32(1.0 / (view.scale * patient.height))
    return u, v


def _splat(points: Array, patient: Patient, view: View, size: int, width: float) -> Array:
    """Lay points (u, v, weight) of the body on the image as lines of a width."""
    u, v, weight = points
    u, v = u * view.scale * patient.width, v * view.scale * patient.height
    cos, sin = np.cos(view.angle), np.sin(view.angle)
    column = (cos * u - sin * v + view.shift[0] + 1.0) * (size / 2) - 0.5
    row = (sin * u + cos * v + view.shift[1] + 1.0) * (size / 2) - 0.5
    keep = (column > 0) & (column < size - 1) & (row > 0) & (row < size - 1)
    column, row, weight = column[keep], row[keep], weight[keep]
    left, top = column.astype(int), row.astype(int)
    right_share, low_share = column - left, row - top
    first = top * size + left
    flat = np.concatenate([first, first + 1, first + size, first + size + 1])
    shares = [(1 - low_share) * (1 - right_share), (1 - low_share) * right_share,
              low_share * (1 - right_share), low_share * right_share]  # fmt: skip
    image = np.bincount(flat, np.concatenate([weight * share for share in shares]), size * size)
    sigma = max(width * size / 2, 0.45)
    scale = 4.7e-6 / width * (size / 2) ** 2  # lines are as dense at every size
    return ndimage.gaussian_filter(
        (image * scale).astype(np.float32).reshape(size, size), sigma, truncate=3.0
    )


def _edge(distance: Array, width: float) -> Array:
    """A step from 0 to 1 where `distance` turns positive."""
    ramp = np.clip(distance * np.float32(0.5 / width) + np.float32(0.5), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _ball(u: Array, v: Array, at: tuple[float, float], radii: tuple[float, float],
          angle: float = 0.0) -> Array:  # fmt: skip
    """Relative thickness of an ellipsoid: 1 in its middle, 0 outside."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    du, dv = u - np.float32(at[0]), v - np.float32(at[1])
    along = (cos * du + sin * dv) * np.float32(1 / radii[0])
    across = (cos * dv - sin * du) * np.float32(1 / radii[1])
    return np.sqrt(np.maximum(1 - along * along - across * across, 0))


def _tube(distance: Array, radius: Array | float) -> Array:
    """Relative thickness of a hollow bone seen from the side: its cortex is brighter."""
    d = distance / radius
    d = d * d
    return np.maximum(1 - d, 0) ** 0.6 * (0.62 + 0.75 * d)


def _cloud(rng: Generator, u: Array, v: Array, cell: float) -> Array:
    """Smooth random texture of about unit variance, fixed to the body."""
    n = int(3.2 / cell) + 4
    knots = rng.normal(0, 1.35, (n, n)).astype(np.float32)
    at = np.stack([(v + 1.6) * np.float32(1 / cell), (u + 1.6) * np.float32(1 / cell)])
    return ndimage.map_coordinates(knots, at, order=2, mode="reflect", prefilter=False)


# ------------------------------------------------------------------------------- anatomy


def _body(patient: Patient, x: Array, v: Array, front: Array) -> Array:
    """Thickness of the body without its air: trunk, breasts, neck, shoulders, arms."""
    fat = 0.09 * patient.fat
    flare = 0.05 * np.clip(v, -0.6, 1.0) + 0.25 * np.clip(0.05 - v, 0, 0.6) ** 2
    half = patient.chest + fat + flare
    trunk = np.sqrt(np.maximum(1 - (x / half) ** 5, 0)) * (
        patient.depth + 0.2 * patient.fat + 0.35 * np.clip(v - 0.2, 0, 1)
    )
    if patient.breast > 0:
        breast = _ball(np.abs(front), v, (0.4, 0.25), (0.33, 0.33)) * _edge(v + 0.05, 0.25)
        trunk += patient.breast * breast
    # the shoulder line falls from the neck outwards
    top = -0.98 + 0.3 * np.clip(x - 0.16, 0, 1) + 0.55 * np.clip(x - patient.arm + 0.05, 0, 1) ** 2
    below = np.clip((v - top) * 4.5, 0, 1)
    trunk *= below**0.6
    neck = 1.25 * np.sqrt(np.maximum(1 - (x / 0.25) ** 2, 0)) * _edge(-0.6 - v, 0.3)
    shoulder = 1.6 * np.sqrt(below) * _edge(-0.12 - v - 0.7 * (1.0 - x), 0.16)
    # an upper arm hangs away from the trunk, with air in the armpit
    axis = patient.arm + 0.05 * patient.fat + patient.spread * (v + 0.6)
    arm = 1.3 * np.sqrt(np.maximum(1 - ((x - axis) / (0.13 + 0.05 * patient.fat)) ** 2, 0))
    arm *= _edge(v + 0.62, 0.25)
    trunk, neck = trunk * trunk, neck * neck  # a union with rounded seams
    return np.sqrt(np.sqrt(trunk * trunk + neck * neck + (shoulder * shoulder + arm * arm) ** 2))


def _lungs(patient: Patient, view: View, u: Array, v: Array, x: Array,
           front: Array) -> tuple[Array, Lungs]:  # fmt: skip
    """Chest cavity (dm) and the lungs in it, around heart and vessels."""
    side = np.where(u < 0, np.float32(-1), np.float32(1))
    widest, tip = 0.42, 0.3
    t = np.clip((widest - v) * np.float32(1 / (widest - patient.apex)), 0, 1)  # 1 at the apex
    outer = tip + (patient.chest - tip) * np.sqrt(np.maximum(1 - t**2.6, 0))
    inner = tip - (tip - 0.07) * np.sqrt(np.maximum(1 - t**6, 0))
    lateral = np.clip((x - inner) / np.maximum(outer - inner, 1e-3), 0, 1)

    # each half of the diaphragm is a dome that falls to a sharp costophrenic angle
    dome = np.where(u < 0, np.float32(patient.domes[0]), np.float32(patient.domes[1]))
    bend = x - 0.36
    floor = dome + view.breath + np.where(bend > 0, 1.7, 1.1) * bend * bend
    level = np.clip((v - patient.apex) / (floor - patient.apex), 0, 1)

    # a ray crosses less lung towards the wall and the apex
    wide = np.clip((x - tip) / np.maximum(outer - tip, 1e-3), 0, 1)
    cavity = patient.depth * np.sqrt(np.maximum(1 - wide**4, 0)) * np.sqrt(1 - 0.7 * t**2)
    cavity *= _edge(outer - x, 0.012) * _edge(x - inner, 0.02) * _edge(v - patient.apex, 0.03)
    above = 0.88 * _edge(floor - v, 0.014) + 0.12 * _edge(floor + 0.05 - v, 0.06)
    path = 0.86 * cavity * above * (1 - _mediastinum(patient, view, v, front))
    return cavity, Lungs(u, v, side, path, lateral, level)


def _mediastinum(patient: Patient, view: View, v: Array, front: Array) -> Array:
    """Share of the chest's depth that heart, great vessels and hila take."""
    size, low = patient.heart, patient.domes[1] - 0.42 + 0.6 * view.breath
    left = (0.4 * size, 0.28 * size)
    parts = [
        # left ventricle and, on the viewer's left, the right atrium
        0.93 * _ball(front, v, (0.13, 0.23 + low), left, patient.heart_tilt) ** 0.7,
        0.85 * _ball(front, v, (-0.07, 0.22 + low), (0.155 * size, 0.25 * size)) ** 0.7,
        0.8 * _ball(front, v, (0.085, -0.24), (patient.knob, patient.knob * 1.1)) ** 0.6,
        0.7 * _ball(front, v, (0.09, -0.07), (0.1, 0.17), -0.3),  # pulmonary trunk
        # upper mediastinum: vena cava on the viewer's left, arteries on the right
        0.9 * _edge(front + 0.12, 0.03) * _edge(0.1 - front, 0.03) * _edge(0.6 - v, 0.3),
        0.5 * _ball(front, v, (-0.16, -0.02), (0.09, 0.14), 0.3) ** 2,  # hila, the left one higher
        0.5 * _ball(front, v, (0.19, -0.06), (0.09, 0.13), -0.3) ** 2,
        # descending aorta, behind the heart
        0.35 * _edge(front, 0.02) * _edge(0.135 - front, 0.012) * _edge(v + 0.25, 0.1),
    ]
    rest = 1.0 - parts[0]
    for part in parts[1:]:
        rest = rest * (1.0 - part)
    return 1.0 - rest


def _air_elsewhere(patient: Patient, view: View, v: Array, front: Array) -> Array:
    """Air in the trachea and main bronchi, and gas in the stomach (dm)."""
    drift = front - patient.trachea * np.clip(v + 0.9, 0, 0.6) / 0.6
    trachea = np.sqrt(np.maximum(1 - (drift / 0.042) ** 2, 0)) * _edge(-0.2 - v, 0.02)
    down = np.clip((v + 0.22) * 6, 0, 1) * (1 - _edge(v - 0.02, 0.04))
    fork = np.abs(drift) - 0.02 - 0.8 * (v + 0.22)
    bronchi = np.sqrt(np.maximum(1 - (fork / 0.035) ** 2, 0)) * down
    at_u, below, wide, high = patient.stomach
    gas = _ball(front, v, (at_u, patient.domes[1] + view.breath + below), (wide, high))
    return 0.42 * trachea + 0.26 * bronchi + 7 * high * gas


def _bones(patient: Patient, u: Array, v: Array, x: Array, front: Array) -> Array:
    """Thickness of bone (dm)."""
    # ribs are rings that fall towards the front: an upper arc behind, a lower arc in front
    t = np.clip((0.3 - v) * np.float32(1 / (0.3 - patient.apex)), 0, 0.995)
    cage = (patient.chest + 0.035) * (1 - t**3.2) ** 0.45
    root = np.sqrt(np.maximum(1 - (u / cage) ** 2, 0))
    turn = np.minimum(1 / np.maximum(root, 0.42), 2.2)  # seen end on at the side
    slope = x / np.maximum(cage * cage * root, 0.08)
    within = _edge(cage - x, 0.01)
    bones = np.zeros(np.broadcast_shapes(u.shape, v.shape), np.float32)
    behind, ahead = patient.rib_drop
    for drop, way, size, amount in ((behind, 1, 0.0235, 0.15), (ahead, -1, 0.026, 0.085)):
        phase = (v + way * drop * root - patient.apex + 0.02) / patient.rib_gap
        phase = phase + 0.1 * np.sin(phase + 6.3 * patient.rib_phase)  # gaps differ a little
        near = (phase - np.rint(phase)) * patient.rib_gap
        tilt = np.minimum(np.sqrt(1 + (drop * slope) ** 2), 3.0)
        rib = amount * _tube(near, size * tilt) * turn * within
        if way > 0:  # twelve ribs behind
            rib *= _edge(11.4 - phase, 0.2) * _edge(phase + 0.4, 0.2)
        else:  # in front they end as cartilage, which casts no shadow
            rib *= _edge(x - 0.3 - 0.06 * np.clip(v, -0.5, 1), 0.05) * _edge(v + 0.5, 0.1)
            rib *= _edge(0.45 - v, 0.15)
        bones += rib
    # spine: vertebrae with brighter end plates, pedicles and spinous processes
    beat = v / (0.112 + 0.02 * np.clip(v, -1, 1)) + patient.rib_phase
    beat = beat - np.rint(beat)
    body = _edge(0.084 - 0.018 * np.cos(6.28 * beat) - 0.02 * np.clip(-v, 0, 1) - x, 0.012)
    bones += 0.13 * body * (0.55 + 0.45 * _edge(0.42 - np.abs(beat), 0.05))
    bones += 0.07 * _ball(x, beat, (0.05, -0.1), (0.018, 0.2))
    bones += 0.08 * _ball(x, beat, (0.0, 0.3), (0.014, 0.22))
    # clavicles: an S from the sternum to the shoulder
    middle, rise, bend = patient.clavicle
    y = np.abs(front)
    s = (y - 0.06) * np.float32(1 / 0.75)
    line = middle - rise * s * (1.35 - 0.35 * s) + bend * np.sin(6.28 * s)
    collar = _tube(v - line, 0.03 + 0.012 * np.clip(0.25 - s, 0, 1) + 0.01 * s * s)
    bones += 0.2 * collar * _edge(s, 0.02) * _edge(1.02 - s, 0.02)
    # shoulder blades and upper arms
    blade = _ball(x, v, (patient.arm - 0.2, -0.35), (0.17, 0.36), 0.25)
    bones += 0.045 * np.minimum(3 * blade, 1) * (1.3 - blade)
    head = _ball(x, v, (patient.arm, -0.62), (0.115, 0.115))
    axis = patient.arm + 0.05 + patient.spread * (v + 0.6)
    shaft = _tube(x - axis, 0.055) * _edge(v + 0.62, 0.05)
    bones += np.maximum(0.2 * head, 0.15 * shaft)
    return bones


def _vessels(rng: Generator) -> tuple[Array, ...]:
    """Grow the vessels of both lungs from the hila, three orders of branches."""
    levels: list[list[Array]] = [[], [], []]
    for side in (-1.0, 1.0):
        n = 11
        at_u = np.full(n, 0.15) + rng.uniform(-0.02, 0.04, n)
        at_v = np.linspace(-0.1, 0.1, n) - (0.03 if side > 0 else 0.0)
        angle = np.linspace(-1.35, 1.3, n) + rng.normal(0, 0.1, n)  # up, outwards, down
        weight = 1.0 + 0.35 * (angle > 0.2)  # more blood below
        length = rng.uniform(0.22, 0.36, n)
        for level in range(3):
            steps = np.linspace(0, 1, 40 // (level + 1))[:, None]
            bend = rng.normal(0, 0.35, len(at_u))
            heading = angle + bend * (steps - 0.3)
            step = length / len(steps)
            us = at_u + np.cumsum(np.cos(heading), 0) * step
            vs = at_v + np.cumsum(np.sin(heading), 0) * step
            thin = weight * (1.0 - 0.55 * steps) * (0.25 + length / 0.5) * step / 0.0075
            levels[level].append(np.stack([side * us, vs, thin]).reshape(3, -1))
            # branches leave at random places of their parents
            n_children = 3 if level == 0 else 4
            parent = np.repeat(np.arange(len(at_u)), n_children)
            place = (rng.uniform(0.35, 1.0, len(parent)) * (len(steps) - 1)).astype(int)
            at_u, at_v = us[place, parent], vs[place, parent]
            angle = heading[place, parent] + rng.choice([-1, 1], len(parent)) * rng.uniform(
                0.25, 0.8, len(parent)
            )
            weight = weight[parent] * 0.6
            length = rng.uniform(0.5, 0.9, len(parent)) * length[parent] * 0.75
    return tuple(np.concatenate(level, axis=1) for level in levels)


# ------------------------------------------------------------------------------- findings
# Each returns the share of the air that fluid replaces, 0 to about 1, over the whole image.


def _bacterial(patient: Patient, view: View, lungs: Lungs, trees: list[Array]) -> Array:
    """One lobe is consolidated: homogeneous, with bronchi still filled with air."""
    rng = np.random.default_rng(patient.seed)
    side, level, half, lateral, fissure = list(LOBES.values())[rng.integers(len(LOBES))]
    level, half = level + rng.uniform(-0.04, 0.04), half * rng.uniform(0.8, 1.1)
    width = rng.uniform(0.5, 0.75)
    reach = ((lungs.level - level) / half) ** 2 + ((lungs.lateral - lateral) / width) ** 2
    reach = 1.0 - reach + 0.22 * _cloud(rng, lungs.u, lungs.v, 0.16)
    fill = _edge(reach - 0.1, 0.3) * _edge(side * lungs.u, 0.02)
    border = level + half * (0.62 if fissure == "below" else -0.62)
    if fissure == "below":  # the horizontal fissure is a straight sharp border
        fill *= _edge(border - lungs.level, 0.02)
    elif fissure == "above":
        fill *= _edge(lungs.level - border, 0.02)
    bronchogram = np.minimum(rng.uniform(0.0, 1.0) * 0.6 * trees[0], 0.5)
    return 0.78 * fill * (1.0 - bronchogram)


def _viral(patient: Patient, view: View, lungs: Lungs, trees: list[Array]) -> Array:
    """Both lungs: a net of fine lines, thick bronchial walls, a veil around the hila."""
    rng = np.random.default_rng(patient.seed)
    n = 1100
    at_u, at_v = rng.uniform(-0.75, 0.75, n), rng.uniform(-0.7, 0.65, n)
    angle, bend = rng.uniform(0, 6.28, n), rng.normal(0, 0.8, n)
    steps = np.linspace(-0.5, 0.5, 14)[:, None]
    length = rng.uniform(0.04, 0.11, n)
    us = at_u + steps * length * np.cos(angle + bend * steps)
    vs = at_v + steps * length * np.sin(angle + bend * steps)
    lines = np.stack([us, vs, np.broadcast_to(length * 4.0, us.shape)]).reshape(3, -1)
    net = _splat(lines, patient, view, lungs.u.shape[-1], 0.0045)
    walls = np.minimum(0.6 * trees[0] + trees[1], 1.2)
    hilum = np.exp(-((np.abs(lungs.u) - 0.2) ** 2) / 0.06 - (lungs.v - 0.03) ** 2 / 0.12)
    uneven = np.maximum(1.0 + 0.22 * _cloud(rng, lungs.u, lungs.v, 0.3), 0)
    return (0.2 * net / (1 + 0.4 * net) + 0.18 * walls + 0.2 * hilum + 0.12) * uneven


def _covid(patient: Patient, view: View, lungs: Lungs, trees: list[Array]) -> Array:
    """Both lungs: hazy patches along the chest wall, mostly below; vessels stay visible."""
    rng = np.random.default_rng(patient.seed)
    haze = np.zeros_like(lungs.path)
    for side in (-1, 1):
        n = int(rng.integers(2, 5))
        own = np.zeros_like(haze)
        for level in rng.uniform(0.45, 0.95, n):
            lateral, half, width = rng.uniform((0.72, 0.1, 0.22), (1.0, 0.2, 0.4))
            reach = ((lungs.level - level) / half) ** 2 + ((lungs.lateral - lateral) / width) ** 2
            own = np.maximum(own, np.exp(-reach))
        haze += own * (lungs.side == side)
    return 0.62 * haze * np.maximum(1.0 + 0.22 * _cloud(rng, lungs.u, lungs.v, 0.09), 0)


_FINDINGS = {"Bacterial Pneumonia": _bacterial, "Viral Pneumonia": _viral, "Covid-19": _covid}
