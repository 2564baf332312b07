"""The scan: where the probe lies on the object, and how patches become an image again."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fnostab.errors import DataError

__all__ = ["Stitched", "centre_crop", "extract_patches", "scan_positions", "stitch", "stitch_weighted"]

LEAST_LIGHT = 0.1  # of the probe's peak intensity, that a pixel of a weighted image has to get on the whole


def scan_positions(object_size: int, N: int, stride: int) -> Tensor:
    """Top-left corners (row, column) of all patches on a regular grid, int64 of shape (n, 2), row by row.

    Args:
        object_size: pixels along a side of the object.
        N: pixels along a side of a patch.
        stride: pixels between neighbours.
    """
    corners = torch.arange(0, object_size - N + 1, stride)
    return torch.cartesian_prod(corners, corners)


def extract_patches(image: Tensor, positions: Tensor, N: int) -> Tensor:
    """The patches of ``image`` (H, W) whose top-left corners are ``positions`` (n, 2): shape (n, N, N).

    Positions in fractions of a pixel are interpolated linearly.
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

    Crops as wide as the stride touch. One pixel more, where needed, gives both sides equal margins.
    """
    return stride + (N - stride) % 2


@dataclass(frozen=True)
class Stitched:
    """An image made of patches, and the part of the object that it covers.

    Attributes:
        image: shape (h, w).
        top: row of the object at which it begins.
        left: column of the object at which it begins.
    """

    image: Tensor
    top: int
    left: int

    def cut(self, whole: Tensor) -> Tensor:
        """The same area of ``whole``, an image of the object's size (H, W): shape (h, w)."""
        height, width = self.image.shape
        return whole[self.top : self.top + height, self.left : self.left + width]


def stitch(patches: Tensor, positions: Tensor, crop: int) -> Stitched:
    """Average the centre crops of overlapping patches.

    Args:
        patches: real or complex, shape (n, N, N).
        positions: top-left corners of the whole patches, int64 of shape (n, 2).
        crop: side in pixels of the centre crop that is used of each patch; see `centre_crop`.

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
    """Average overlapping patches at fractions of a pixel, weighted by the light that each pixel got.

    Args:
        patches: complex, shape (n, N, N).
        positions: top-left corners, float of shape (n, 2), at least 0; what is between pixels is shared linearly.
        weight: of a patch's pixels, as the probe's intensity, shape (N, N).
        area: positions (m, 2) whose patches' centres the image spans.

    Returns:
        The image (h, w), and where it is covered, bool of shape (h, w): elsewhere it is 0.
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
    """The four whole positions around each (n, 2), and their shares (n, 1, 1) by linear interpolation."""
    corners = positions.floor().long()
    fractions = (positions - corners).float()
    around = []
    for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
        shares = [fractions[:, axis] if step else 1 - fractions[:, axis] for axis, step in enumerate((down, across))]
        around.append((corners + torch.tensor([down, across]), (shares[0] * shares[1])[:, None, None]))
    return around


def _pixels(corners: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pixels of squares with these corners, each of shape (n, side, side)."""
    offset = torch.arange(side, device=corners.device)
    rows = corners[:, 0, None, None] + offset[:, None]
    columns = corners[:, 1, None, None] + offset
    shape = (len(corners), side, side)
    return rows.expand(shape), columns.expand(shape)
