"""Scan geometry: extract the patches that the probe illuminates, and stitch patches to an image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fnostab.errors import DataError

LEAST_LIGHT = 0.1  # minimum total weight of a covered pixel, as a share of the probe's peak intensity


def scan_positions(object_size: int, N: int, stride: int) -> Tensor:
    """Top-left corners (row, column) of all patches on a regular grid, row by row, int64 of shape (n, 2).

    Args:
        object_size: pixels along a side of the object.
        N: pixels along a side of a patch.
        stride: pixels between neighbouring patches.
    """
    corners = torch.arange(0, object_size - N + 1, stride)
    return torch.cartesian_prod(corners, corners)


def extract_patches(image: Tensor, positions: Tensor, N: int) -> Tensor:
    """Extract the patches of ``image`` (H, W) with top-left corners at ``positions`` (n, 2), shape (n, N, N).

    At fractional positions the image is interpolated linearly.
    """
    if not positions.is_floating_point():
        rows, columns = _pixels(positions, N)
        return image[rows, columns]
    patches = image.new_zeros(len(positions), N, N)
    for corners, share in _whole_pixels(positions):
        rows, columns = _pixels(corners, N)
        inside = (rows < image.shape[0]) & (columns < image.shape[1])
        patches += share * image[rows.clamp(max=image.shape[0] - 1), columns.clamp(max=image.shape[1] - 1)] * inside
    return patches


def centre_crop(N: int, stride: int) -> int:
    """Side in pixels of the smallest centre crop that leaves no gaps between patches.

    Crops as wide as the stride touch each other. One more pixel is added if needed for equal margins on both sides.
    """
    return stride + (N - stride) % 2


@dataclass(frozen=True)
class Stitched:
    """Image stitched from patches, and its position in the object.

    Attributes:
        image: stitched image, shape (h, w).
        top: first row of the image in the object.
        left: first column of the image in the object.
    """

    image: Tensor
    top: int
    left: int

    def cut(self, whole: Tensor) -> Tensor:
        """Cut the same area (h, w) from ``whole``, an image (H, W) of the object's size."""
        height, width = self.image.shape
        return whole[self.top : self.top + height, self.left : self.left + width]


def stitch(patches: Tensor, positions: Tensor, crop: int) -> Stitched:
    """Average the centre crops of overlapping patches.

    Args:
        patches: real or complex, shape (n, N, N).
        positions: top-left corners of the whole patches, int64 of shape (n, 2).
        crop: side in pixels of the centre crop used from each patch, see `centre_crop`.

    Raises:
        DataError: the crop is larger than a patch, or the crops leave gaps.
    """
    N = patches.shape[-1]
    if not 0 < crop <= N:
        raise DataError(f"crop={crop} does not fit patches of {N} x {N}: accepted 1 to {N}")
    margin = (N - crop) // 2
    inner = patches[:, margin : margin + crop, margin : margin + crop]
    corners = positions.to(patches.device) + margin
    top, left = corners.amin(dim=0).tolist()
    height, width = (corners.amax(dim=0) - corners.amin(dim=0) + crop).tolist()

    rows, columns = _pixels(corners - corners.amin(dim=0), crop)
    pixel = (rows * width + columns).flatten()
    total = patches.new_zeros(height * width).index_add(0, pixel, inner.flatten())
    times = torch.bincount(pixel, minlength=height * width)
    if not times.all():
        raise DataError(f"crop={crop} leaves {int((times == 0).sum())} pixels without a patch: use at least the stride")
    return Stitched((total / times).reshape(height, width), top, left)


def stitch_weighted(patches: Tensor, positions: Tensor, weight: Tensor, area: Tensor) -> tuple[Stitched, Tensor]:
    """Average overlapping patches at fractional positions, weighted by the probe's intensity.

    Args:
        patches: complex, shape (n, N, N).
        positions: top-left corners, float of shape (n, 2), at least 0; linear interpolation between pixels.
        weight: weight of a patch's pixels, such as the probe's intensity, shape (N, N).
        area: positions (m, 2); the image spans the centres of their patches.

    Returns:
        The image (h, w), 0 where it is not covered, and a mask of covered pixels, bool of shape (h, w).
    """
    N = patches.shape[-1]
    top, left = (area.amin(dim=0).floor().long() + N // 2).tolist()
    bottom, right = (area.amax(dim=0).ceil().long() + N // 2 + 1).tolist()
    height, width = (positions.amax(dim=0).floor().long() + N + 1).clamp(min=max(bottom, right)).tolist()
    light = torch.zeros(height * width, dtype=weight.dtype)
    total = torch.zeros(height * width, dtype=patches.dtype)
    for corners, share in _whole_pixels(positions):
        rows, columns = _pixels(corners, N)
        pixel = (rows * width + columns).flatten()
        light.index_add_(0, pixel, (share.to(weight.dtype) * weight).flatten())
        total.index_add_(0, pixel, (share.to(weight.dtype) * weight * patches).flatten())
    covered = light >= LEAST_LIGHT * weight.max()
    image = torch.where(covered, total / light.clamp(min=torch.finfo(light.dtype).tiny), 0)
    image, covered = (whole.reshape(height, width)[top:bottom, left:right] for whole in (image, covered))
    return Stitched(image, top, left), covered


def _whole_pixels(positions: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The four integer positions (n, 2) around each position, with bilinear weights (n, 1, 1)."""
    corners = positions.floor().long()
    fractions = (positions - corners).float()
    around = []
    for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
        shares = [fractions[:, axis] if step else 1 - fractions[:, axis] for axis, step in enumerate((down, across))]
        around.append((corners + torch.tensor([down, across]), (shares[0] * shares[1])[:, None, None]))
    return around


def _pixels(corners: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Row and column indices of the pixels of squares with these corners, each of shape (n, side, side)."""
    offset = torch.arange(side, device=corners.device)
    rows = corners[:, 0, None, None] + offset[:, None]
    columns = corners[:, 1, None, None] + offset
    shape = (len(corners), side, side)
    return rows.expand(shape), columns.expand(shape)
