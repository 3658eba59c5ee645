"""Augmentation that a chest radiograph survives.

A policy changes training batches, and the views of test-time augmentation. Left and right are
never exchanged: that turns the heart around (situs inversus is a finding, not a variation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from skcxr._exceptions import InputError

__all__ = ["CXRAugmentation", "CXRViews", "MixBatch", "PerImage", "make_views"]

Labels = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class CXRAugmentation:
    """Small changes of pose and exposure, drawn anew for every image of a batch.

    Parameters
    ----------
    degrees : float, default=10
        Largest rotation to either side, in degrees: how far patients lean.
    translate : float, default=0.06
        Largest shift, as a part of the width and of the height: centring of the beam.
    scale : float, default=0.1
        Largest change of size, as a part: body size and distance to the detector.
    gamma : float, default=0.3
        The exponent of the gray values is drawn between ``exp(-gamma)`` and ``exp(gamma)``:
        exposure and the film's or detector's curve [1]_. Pixels outside [0, 1] are left alone.
    contrast : float, default=0.0
        Differences to the image's mean are multiplied by a factor between ``exp(-contrast)`` and
        ``exp(contrast)``: beam energy, scatter and the window that a workstation has set [2]_.
        What leaves [0, 1] is cut off, as a display does; pixels outside are left alone.
    noise : float, default=0.0
        Gaussian noise is added, its standard deviation drawn between 0 and `noise`: quantum
        mottle, the grain of a low dose [2]_.
    aspect : float, default=0.0
        The ratio of width to height is multiplied by a factor between ``exp(-aspect)`` and
        ``exp(aspect)``: where films of all shapes are stretched to one, the stretch tells how a
        film was cropped, and thereby where it comes from.
    cutout : float, default=0.0
        Side of a square, as a part of the image's shorter side, that is filled with the image's
        mean in every second image on average, anywhere inside of it (the paper's second variant),
        so that a finding is not told by one place alone [3]_.
    interpolation : {"nearest", "bilinear"}, default="nearest"
        Where the pixels of a moved image come from. "nearest" keeps them as sharp as those that
        are predicted. "bilinear" blurs a little, which small images of many patients bear and
        which makes a network look less at the grain of one device.

    Notes
    -----
    There is no flip. A mirrored radiograph shows a heart on the right side, which patients with
    situs inversus have and others do not; upside down they do not come.

    How a patient stands is part of what makes a radiograph good or bad [4]_. Rotation, size,
    gamma, contrast and noise are also what augmentation of other medical images is made of
    [5]_ [6]_. The ranges are a choice of this package.

    Contrast, noise and cut-out are off and there for larger sets: on a few hundred films, noise
    and a cut-out on top of the others have not helped a small network.

    Order: pose, gamma, contrast, noise, cut-out. Pixels are taken from the nearest place:
    interpolation would blur what is trained on, and not what is predicted.

    References
    ----------
    .. [1] F. Hurter, V. C. Driffield, "Photo-chemical investigations and a new method of
       determination of the sensitiveness of photographic plates", Journal of the Society of
       Chemical Industry 9, 1890.
    .. [2] J. T. Bushberg, J. A. Seibert, E. M. Leidholdt, J. M. Boone, "The Essential Physics of
       Medical Imaging", Lippincott Williams & Wilkins.
    .. [3] T. DeVries, G. W. Taylor, "Improved regularization of convolutional neural networks
       with cutout", arXiv:1708.04552, 2017.
    .. [4] "European guidelines on quality criteria for diagnostic radiographic images",
       EUR 16260, European Commission, 1996.
    .. [5] F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based
       biomedical image segmentation", Nature Methods 18, 2021.
    .. [6] L. Zhang et al., "Generalizing deep learning for medical image segmentation to unseen
       domains via deep stacked transformation", IEEE Transactions on Medical Imaging 39, 2020.

    Examples
    --------
    >>> import torch
    >>> from skcxr.augmentation import CXRAugmentation
    >>> batch = torch.rand(4, 1, 64, 64)
    >>> CXRAugmentation()(batch).shape
    torch.Size([4, 1, 64, 64])

    The same changes for other images:

    >>> policy = CXRAugmentation(noise=0.05)
    >>> draw = policy.draw(4)
    >>> torch.equal(policy.apply(batch, draw), policy.apply(batch, draw))
    True
    """

    degrees: float = 10
    translate: float = 0.06
    scale: float = 0.1
    gamma: float = 0.3
    contrast: float = 0.0
    noise: float = 0.0
    aspect: float = 0.0
    cutout: float = 0.0
    interpolation: str = "nearest"

    def __post_init__(self) -> None:
        below = {"scale": 1.0, "cutout": 1.0}
        if self.interpolation not in ("nearest", "bilinear"):
            raise InputError(
                f"interpolation={self.interpolation!r} of CXRAugmentation is neither 'nearest' nor "
                "'bilinear'"
            )
        for name in (field.name for field in fields(self) if field.name != "interpolation"):
            value, limit = getattr(self, name), below.get(name, float("inf"))
            if not 0 <= value < limit:
                allowed = "0 or more" if limit == float("inf") else f"in [0, {limit:g})"
                raise InputError(f"{name}={value!r} of CXRAugmentation must be {allowed}")

    def __call__(self, images: Tensor) -> Tensor:
        """Change a batch ``(B, 1, H, W)`` of pixels, or one image ``(1, H, W)``."""
        if (
            not isinstance(images, Tensor)
            or images.ndim not in (3, 4)
            or not images.numel()
            or not images.is_floating_point()
        ):
            what = type(images).__name__
            if isinstance(images, Tensor):
                what = f"a tensor of {images.dtype} of shape {tuple(images.shape)}"
            raise InputError(
                f"CXRAugmentation changes a float tensor (B, 1, H, W) or (1, H, W), got {what}"
            )
        if images.ndim == 3:
            return self(images[None])[0]
        return self.apply(images, self.draw(len(images)))

    def draw(self, n_images: int) -> Tensor:
        """Draw changes from torch's global generator of the CPU, whatever the device.

        Parameters
        ----------
        n_images : int
            How many images are to be changed.

        Returns
        -------
        Tensor of shape (5, n_images) or (12, n_images)
            Numbers in [-1, 1): rotation, size, shift to the side, shift up or down, gamma;
            and, where one of them is on, contrast, noise (deviation, seed), cut-out (whether,
            row, column) and aspect. 0 changes nothing in the first six rows and the last.
        """
        draw = torch.rand(5, n_images) * 2 - 1
        if self.contrast or self.noise or self.cutout or self.aspect:
            draw = torch.cat([draw, torch.rand(7, n_images) * 2 - 1])
        return draw

    def apply(self, images: Tensor, draw: Tensor) -> Tensor:
        """Change images as drawn; an image's result depends on its own column alone.

        Parameters
        ----------
        images : Tensor of shape (B, 1, H, W)
            The batch.
        draw : Tensor of shape (5, B) or (12, B)
            What :meth:`draw` gives. With 5 rows, pose and gamma alone are changed.

        Returns
        -------
        Tensor of shape (B, 1, H, W)
            The changed batch.

        Raises
        ------
        InputError
            `draw` is not of that shape.
        """
        if draw.ndim != 2 or draw.shape[0] not in (5, 12) or draw.shape[1] != len(images):
            raise InputError(
                f"draw has shape {tuple(draw.shape)}; for {len(images)} images it is "
                f"(5, {len(images)}) or (12, {len(images)})"
            )
        seeds = draw[7].double().cpu() if len(draw) == 12 else draw.new_zeros(0)
        draw = draw.to(images)
        images = self._pose(images, draw)
        gamma = (draw[4] * self.gamma).exp().view(-1, 1, 1, 1)
        unit = images.clamp(0, 1)
        images = images + (unit**gamma - unit)
        if len(draw) == 5:
            return images
        if self.contrast:
            unit = images.clamp(0, 1)
            mean = unit.mean((1, 2, 3), keepdim=True)
            factor = (draw[5] * self.contrast).exp().view(-1, 1, 1, 1)
            images = images + ((mean + (unit - mean) * factor).clamp(0, 1) - unit)
        if self.noise:
            deviation = ((draw[6] + 1) / 2 * self.noise).view(-1, 1, 1, 1)
            images = images + deviation * _grain(images, seeds)
        return _cut_out(images, draw[8:11], self.cutout) if self.cutout else images

    def _pose(self, images: Tensor, draw: Tensor) -> Tensor:
        height, width = images.shape[2:]
        angle = draw[0] * self.degrees * torch.pi / 180
        scale = 1 + draw[1] * self.scale
        # the grid is in units of half a side; height / width keeps a rotation a rotation
        cos, sin, ratio = angle.cos() / scale, angle.sin() / scale, height / width
        dx, dy = 2 * self.translate * draw[2], 2 * self.translate * draw[3]
        row1 = torch.stack([cos, -sin * ratio, dx], 1)
        row2 = torch.stack([sin / ratio, cos, dy], 1)
        if self.aspect and len(draw) == 12:
            wider = (draw[11] * self.aspect / 2).exp()[:, None]
            row1[:, :2], row2[:, :2] = row1[:, :2] / wider, row2[:, :2] * wider
        grid = F.affine_grid(torch.stack([row1, row2], 1), list(images.shape), align_corners=False)
        mode = self.interpolation
        return F.grid_sample(images, grid, mode, padding_mode="border", align_corners=False)


def _grain(images: Tensor, seeds: Tensor) -> Tensor:
    """Standard normal noise of each image from its seed in [-1, 1), the same on every device."""
    generator = torch.Generator()
    grain = [
        torch.randn(images.shape[1:], generator=generator.manual_seed(round((seed + 1) * 2**23)))
        for seed in seeds.tolist()
    ]
    return torch.stack(grain).to(images)


def _cut_out(images: Tensor, draw: Tensor, part: float) -> Tensor:
    """Fill a square with the image's mean where ``draw[0]`` is below 0."""
    height, width = images.shape[2:]
    side = round(part * min(height, width))
    inside = []
    for place, length in ((draw[1], height), (draw[2], width)):
        start = ((place + 1) / 2 * (length - side + 1)).floor()[:, None]  # (B, 1)
        pixel = torch.arange(length, device=images.device)
        inside.append((pixel >= start) & (pixel < start + side))  # (B, length)
    square = inside[0][:, :, None] & inside[1][:, None] & (draw[0] < 0)[:, None, None]
    return torch.where(square[:, None], images.mean((1, 2, 3), keepdim=True), images)


class PerImage:
    """Apply a user's transform to each image ``(1, H, W)`` of a batch by itself.

    Parameters
    ----------
    transform : callable
        A torchvision v2 transform or any function from a float tensor ``(1, H, W)`` to one of
        the same shape.

    Examples
    --------
    >>> import torch
    >>> from skcxr.augmentation import PerImage
    >>> brighter = PerImage(lambda image: image * 1.1)
    >>> brighter(torch.rand(4, 1, 64, 64)).shape
    torch.Size([4, 1, 64, 64])
    """

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        self.transform = transform

    def __call__(self, images: Tensor) -> Tensor:
        """Change a batch ``(B, 1, H, W)`` of pixels."""
        changed = [self.transform(image) for image in images]
        for image in changed:
            if not isinstance(image, Tensor) or image.shape != images.shape[1:]:
                what = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
                raise InputError(
                    f"augmentation={self.transform!r} turned an image of shape "
                    f"{tuple(images.shape[1:])} into {what}; it must keep the shape"
                )
        return torch.stack(changed).to(images.dtype)


class CXRViews:
    """The same few views of every image, for test-time augmentation.

    The first view is the image itself. The others are poses and exposures within half the ranges
    of a policy: what a network has seen in training, and nothing at the edge of it. No random
    number is drawn, so an image has the same views in every batch, order and process.

    Parameters
    ----------
    n_views : int
        Views of each image. With 3, 7 or 15 every change is balanced: rotations, shifts and
        exposures have a mean of zero over the views.
    policy : CXRAugmentation or None, default=None
        Whose pose and gamma are taken; None takes the default one. Contrast, noise and cut-out
        are left out: they hide what is to be seen.

    Attributes
    ----------
    draws : Tensor of shape (5, n_views)
        The changes, as :meth:`CXRAugmentation.draw` gives them: points of a Sobol sequence [1]_,
        which fill the ranges evenly, from its centre on.

    Notes
    -----
    Pixels are taken from where the policy takes them, by default from the nearest place, as in
    training: interpolation would show the network softer images than it has learnt.

    References
    ----------
    .. [1] I. M. Sobol', "On the distribution of points in a cube and the approximate evaluation
       of integrals", USSR Computational Mathematics and Mathematical Physics 7, 1967.

    Examples
    --------
    >>> import torch
    >>> from skcxr.augmentation import CXRViews
    >>> images = torch.rand(2, 1, 64, 64)
    >>> views = list(CXRViews(3)(images))
    >>> len(views), torch.equal(views[0], images)
    (3, True)
    """

    def __init__(self, n_views: int, policy: CXRAugmentation | None = None) -> None:
        if n_views < 1:
            raise InputError(f"n_views={n_views!r} must be 1 or more")
        self.policy = CXRAugmentation() if policy is None else policy
        engine = torch.quasirandom.SobolEngine(8)  # type: ignore[no-untyped-call]
        points = engine.draw(n_views + 1, dtype=torch.float64)[1:]  # the first is a corner
        points = points[:, [0, 2, 3, 6, 7]]  # of its axes, those least alike in 7 and 15 points
        self.draws = (points - 0.5).T.float()  # half of [-1, 1); the first column is 0

    def __call__(self, images: Tensor) -> Iterator[Tensor]:
        """Go through the views ``(B, 1, H, W)`` of a batch, the batch itself first."""
        yield images
        for draw in self.draws.T[1:]:
            yield self.policy.apply(images, draw[:, None].expand(5, len(images)))


def make_views(images: Tensor, n_views: int) -> Iterator[Tensor]:
    """Go through fixed views of a batch, the batch itself first.

    Parameters
    ----------
    images : Tensor of shape (B, 1, H, W)
        The batch.
    n_views : int
        Views of each image, the image itself among them.

    Returns
    -------
    iterator of Tensor of shape (B, 1, H, W)
        The views of :class:`CXRViews` with the default policy.

    Examples
    --------
    >>> import torch
    >>> from skcxr.augmentation import make_views
    >>> [tuple(view.shape) for view in make_views(torch.rand(2, 1, 64, 64), 3)]
    [(2, 1, 64, 64), (2, 1, 64, 64), (2, 1, 64, 64)]
    """
    return CXRViews(n_views)(images)


class MixBatch:
    """Mix each image of a batch, and its labels, with the one before it.

    A face over :class:`torchvision.transforms.v2.MixUp` [1]_ and
    :class:`torchvision.transforms.v2.CutMix` [2]_ that mixes weights too, so that the weighted
    loss of a mixed label is exactly the mixture of the two losses. With both, each batch gets one
    of them by an even chance.

    Parameters
    ----------
    mixup : float, default=0.0
        Parameter alpha of mixup's Beta(alpha, alpha), from which the share of an image in the
        blend is drawn, once for each batch; 0 is off. 0.2 blends a little, 1.0 evenly.
    cutmix : float, default=0.0
        The same for the share of the image that a rectangle of another one leaves; 0 is off.
    num_classes : int or None, default=None
        Number of classes; None only for findings.

    Notes
    -----
    CutMix pastes a piece of one patient's lungs into another's: two half diseases side by side,
    with edges that no radiograph has. It is a regulariser, not an image, and off by default
    everywhere in this package.

    Everything is drawn from torch's global generator of the CPU. Batches have to be shuffled:
    neighbours are mixed.

    References
    ----------
    .. [1] H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz, "mixup: Beyond empirical risk
       minimization", ICLR 2018.
    .. [2] S. Yun et al., "CutMix: Regularization strategy to train strong classifiers with
       localizable features", ICCV 2019.

    Examples
    --------
    >>> import torch
    >>> from skcxr.augmentation import MixBatch
    >>> images, target, weight = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]), torch.ones(4)
    >>> mixed, (target, weight) = MixBatch(mixup=0.2, num_classes=3)(images, (target, weight))
    >>> mixed.shape, target.shape, weight.shape
    (torch.Size([4, 1, 8, 8]), torch.Size([4, 3]), torch.Size([4]))
    """

    def __init__(
        self, mixup: float = 0.0, cutmix: float = 0.0, num_classes: int | None = None
    ) -> None:
        for name, value in (("mixup", mixup), ("cutmix", cutmix)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{name}={value!r} must be a finite number, 0 or more")
        self.mixup, self.cutmix, self.num_classes = mixup, cutmix, num_classes
        self._mix: Callable[..., tuple[Tensor, Tensor]] | None = None
        if mixup or cutmix:
            from torchvision.transforms import v2  # takes a second

            kinds = ((v2.MixUp, float(mixup)), (v2.CutMix, float(cutmix)))
            mixers = [kind(alpha=alpha) for kind, alpha in kinds if alpha]
            self._mix = v2.RandomChoice(mixers) if len(mixers) == 2 else mixers[0]

    def __call__(self, images: Tensor, labels: Labels) -> tuple[Tensor, Labels]:
        """Mix a batch.

        `labels` are targets and weights: of classes ``(B,)`` and ``(B,)``, of findings ``(B, K)``
        and ``(B, K)``. Targets come back as probabilities ``(B, K)``, even ones where the weight
        is 0, and weights in their shape.
        """
        target, weight = labels
        if of_classes := target.ndim == 1:
            if self.num_classes is None:
                raise InputError("num_classes=None of MixBatch is for findings; y holds classes")
            target = F.one_hot(target, self.num_classes).to(weight)  # (B, K)
            weight = weight[:, None]  # (B, 1)
        # mixing is linear in what stands here, and so is the loss; an unlabelled target may be NaN
        weighted = torch.where(weight > 0, target * weight, 0)
        if self._mix is not None:
            k = target.shape[1]
            images, both = self._mix(images, torch.cat([weighted, weight], 1))
            weighted, weight = both[:, :k], both[:, k:]
        even = 1 / target.shape[1] if of_classes else 0.5
        target = torch.where(weight > 0, weighted / weight, even)
        return images, (target, weight[:, 0] if of_classes else weight)
