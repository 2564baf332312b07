"""The scan: where the probe lies on the object, and how patches become an image again."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fnostab.errors import DataError

__all__ = ["Stitched", "centre_crop", "extract_patches", "scan_positions", "stitch"]


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
    """The patches of ``image`` (H, W) whose top-left corners are ``positions`` (n, 2): shape (n, N, N)."""
    rows, columns = _pixels(positions, N)
    return image[rows, columns]


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


def _pixels(corners: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pixels of squares with these corners, each of shape (n, side, side)."""
    offset = torch.arange(side, device=corners.device)
    rows = corners[:, 0, None, None] + offset[:, None]
    columns = corners[:, 1, None, None] + offset
    shape = (len(corners), side, side)
    return rows.expand(shape), columns.expand(shape)
