"""The first nodes of an ONNX graph: images of any size -> pixels as the network takes them.

They do what Pillow's ``Image.resize`` does (src/libImaging/Resample.c): each axis is multiplied by
a matrix of weights, which the graph computes from the image's size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from skcxr._optional import import_optional

_FLOAT, _DOUBLE = 1, 11  # ONNX's numbers of these types
_PIXELS = np.array([1, 2])  # axes of the images
_FIXED = 2.0**22  # Pillow's weights for 8-bit pixels are multiples of 1 / _FIXED


class Nodes:
    """Nodes and constants of a graph that is being written.

    Parameters
    ----------
    prefix : str
        What all their names begin with.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self.constants: dict[tuple[str, bytes], Any] = {}

    def __call__(self, op: str, *inputs: Any, output: str = "", **attributes: Any) -> str:
        """Add a node whose inputs are names or numbers; the name of its output."""
        helper = import_optional("onnx", "onnx").helper
        output = output or f"{self.prefix}{op}_{len(self.nodes)}"
        names = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        name = f"{self.prefix}node_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [output], name, **attributes))
        return output

    def choose(
        self, condition: str, then: Callable[[Nodes], str], otherwise: Callable[[Nodes], str]
    ) -> str:
        """Add a node that does one thing or another; the name of its output of float32."""
        helper = import_optional("onnx", "onnx").helper
        graphs = {}
        for name, write in (("then_branch", then), ("else_branch", otherwise)):
            inner = Nodes(f"{self.prefix}{name}.")
            inner.constants = self.constants  # a graph inside sees what stands outside
            output = helper.make_tensor_value_info(write(inner), _FLOAT, None)
            graphs[name] = helper.make_graph(inner.nodes, name, [], [output])
        return self("If", condition, **graphs)

    def _constant(self, value: Any) -> str:
        array = np.asarray(value)
        key = f"{array.dtype}{array.shape}", array.tobytes()
        if key not in self.constants:
            numpy_helper = import_optional("onnx.numpy_helper", "onnx")
            name = f"{self.prefix}constant_{len(self.constants)}"
            self.constants[key] = numpy_helper.from_array(array, name)
        return str(self.constants[key].name)


def write_rows(images: str, pixels: str, shape: tuple[int, int]) -> Nodes:
    """Rows ``(B, n_features)`` -> pixels ``(B, 1, H, W)``."""
    op = Nodes("input.")
    op("Reshape", images, np.array([-1, 1, *shape]), output=pixels)
    return op


def write_resize(images: str, pixels: str, size: tuple[int, int], interpolation: str) -> Nodes:
    """Images ``(B, h, w)`` -> pixels ``(B, 1, H, W)``, as :func:`skcxr.images.resize` does it.

    An image of multiples of 1 / 255 is taken for one of 8 bits, for which Pillow has weights of
    22 bits and rounds after each axis; others are floats. At their size both stay as they are.
    """
    op = Nodes("input.")
    lowest, highest = (op(f"Reduce{kind}", images, _PIXELS) for kind in ("Min", "Max"))
    unit = op("And", op("GreaterOrEqual", lowest, np.float32(0)),
              op("LessOrEqual", highest, np.float32(1)))  # fmt: skip
    levels, whole = _levels(op, images, 255)
    of_8_bits = op("And", whole, unit)  # (B, 1, 1)
    x = _double(op, op("Where", of_8_bits, levels, images))
    weights = [_weights(op, images, axis, size[axis], interpolation, of_8_bits) for axis in (0, 1)]

    def resized(op: Nodes, axes: tuple[int, int]) -> str:
        new = x
        for axis in axes:
            pair = (new, weights[1]) if axis else (weights[0], new)
            new = op("MatMul", *pair)
            rounded = op("Floor", op("Add", new, 0.5))
            if interpolation == "bicubic":  # which overshoots
                rounded = op("Min", op("Max", rounded, 0.0), 255.0)
            new = op("Where", of_8_bits, rounded, _double(op, _single(op, new)))
        return _single(op, new)

    if _pillow_may_begin_with_rows():  # where much height and less than half as much width goes
        goes = [
            op("Sub", op("Shape", images, start=axis + 1, end=axis + 2), np.array([size[axis]]))
            for axis in (0, 1)
        ]
        more = op("Greater", goes[0], op("Mul", goes[1], np.array([2])))
        begin = op("Squeeze", op("And", more, op("Greater", goes[0], np.array([0]))))
        x = op.choose(begin, lambda op: resized(op, (0, 1)), lambda op: resized(op, (1, 0)))
    else:
        x = resized(op, (1, 0))
    from_8_bits = op("Div", x, np.float32(255))
    if interpolation == "bicubic":
        of_16_bits = op("And", _levels(op, images, 65535)[1], unit)
        x = op("Max", x, op("Where", of_16_bits, np.float32(0), lowest))
        x = op("Min", x, op("Where", of_16_bits, np.float32(1), highest))
    op("Unsqueeze", op("Where", of_8_bits, from_8_bits, x), np.array([1]), output=pixels)
    return op


@cache
def _pillow_may_begin_with_rows() -> bool:
    """Whether the Pillow that is here resizes rows before columns for some sizes.

    For pixels of 8 bits, which are rounded in between, the order makes a difference.
    """
    pixels = (np.arange(64 * 20) * 89 % 256).astype(np.uint8).reshape(64, 20)
    image, hamming = Image.fromarray(pixels), Image.Resampling.HAMMING
    first = image.resize((20, 16), hamming).resize((16, 16), hamming)
    return image.resize((16, 16), hamming).tobytes() == first.tobytes()


def _levels(op: Nodes, images: str, most: int) -> tuple[str, str]:
    """Gray levels of the type that ends with `most`; and whether an image has no others."""
    levels = op("Round", op("Mul", images, np.float32(most)))
    off = op("Abs", op("Sub", op("Div", levels, np.float32(most)), images))
    # k / 255 and k * (1 / 255) differ in the last bits
    over = op("Sub", off, op("Mul", op("Abs", images), np.float32(2**-22)))
    return levels, op("LessOrEqual", op("ReduceMax", over, _PIXELS), np.float32(0))


def _weights(
    op: Nodes, images: str, axis: int, length: int, interpolation: str, of_8_bits: str
) -> str:
    """Weights of the old pixels of an axis, (B, w, W) of columns or (B, H, h) of rows."""
    found = op("Shape", images, start=axis + 1, end=axis + 2)  # (1,)
    old = _double(op, op("Range", np.int64(0), op("Squeeze", found), np.int64(1)))
    old = op("Unsqueeze", old, np.array([axis]))
    new = np.arange(length) + 0.5
    scale = op("Div", _double(op, found), float(length))
    centre = op("Mul", new[None, :] if axis else new[:, None], scale)
    reach = op("Div", 1.0, op("Max", scale, 1.0))  # the window is widened to downscale
    away = op("Abs", op("Mul", op("Add", op("Sub", old, centre), 0.5), reach))
    window = _WINDOWS[interpolation](op, away)
    weights = op("Div", window, op("ReduceSum", window, np.array([1 - axis])))
    size = op("Floor", op("Add", op("Mul", op("Abs", weights), _FIXED), 0.5))
    of_22_bits = op("Div", op("Mul", op("Sign", weights), size), _FIXED)
    return op("Where", of_8_bits, of_22_bits, weights)


def _hamming(op: Nodes, x: str) -> str:
    angle = op("Mul", op("Max", x, 1e-300), math.pi)
    sinc = op("Div", op("Sin", angle), angle)
    half = op("Sin", op("Mul", angle, 0.5))  # not all runtimes have a cosine of doubles
    cosine = op("Sub", 1.0, op("Mul", op("Mul", half, half), 0.92))  # 0.54 + 0.46 cos(angle)
    return op("Where", op("Less", x, 1.0), op("Mul", sinc, cosine), 0.0)


def _bilinear(op: Nodes, x: str) -> str:
    return op("Max", op("Sub", 1.0, x), 0.0)


def _bicubic(op: Nodes, x: str) -> str:
    a = -0.5

    def polynomial(*factors: float) -> str:
        total = op("Mul", x, factors[0])
        for factor in factors[1:-1]:
            total = op("Mul", op("Add", total, factor), x)
        return op("Add", total, factors[-1])

    near = polynomial(a + 2, -(a + 3), 0.0, 1.0)
    far = polynomial(a, -5 * a, 8 * a, -4 * a)
    beyond = op("Where", op("Less", x, 2.0), far, 0.0)
    return op("Where", op("Less", x, 1.0), near, beyond)


_WINDOWS = {"hamming": _hamming, "bilinear": _bilinear, "bicubic": _bicubic}


def _double(op: Nodes, x: str) -> str:
    return op("Cast", x, to=_DOUBLE)


def _single(op: Nodes, x: str) -> str:
    return op("Cast", x, to=_FLOAT)
