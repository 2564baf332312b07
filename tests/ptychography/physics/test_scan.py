import pytest
import torch

from fnostab.errors import DataError
from fnostab.ptychography.physics.scan import centre_crop, extract_patches, scan_positions, stitch


@pytest.mark.parametrize(
    ("object_size", "N", "stride", "n"),
    [(392, 64, 4, 6889), (392, 64, 10, 1089), (120, 32, 4, 529), (120, 32, 5, 324)],
)
def test_number_of_positions(object_size, N, stride, n):
    positions = scan_positions(object_size, N, stride)
    assert positions.shape == (n, 2)
    assert positions.dtype == torch.int64
    assert positions.min() == 0
    assert positions.max() <= object_size - N


def test_positions_run_row_by_row():
    assert scan_positions(9, 4, 5).tolist() == [[0, 0], [0, 5], [5, 0], [5, 5]]


def test_patch_is_the_part_of_the_object_at_its_position():
    image = torch.arange(100).reshape(10, 10)
    patches = extract_patches(image, torch.tensor([[0, 0], [3, 5]]), 4)
    assert torch.equal(patches[0], image[:4, :4])
    assert torch.equal(patches[1], image[3:7, 5:9])


@pytest.mark.parametrize(("N", "stride"), [(8, 3), (8, 4), (9, 2), (9, 3), (8, 1)])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.float32])
def test_stitching_the_true_patches_gives_the_truth(N, stride, dtype):
    image = torch.randn(31, 31, dtype=dtype, generator=torch.Generator().manual_seed(0))
    positions = scan_positions(31, N, stride)
    patches = extract_patches(image, positions, N)
    for crop in (centre_crop(N, stride), N):
        stitched = stitch(patches, positions, crop)
        torch.testing.assert_close(stitched.image, stitched.cut(image))
        assert stitched.image.shape == ((len(positions) ** 0.5 - 1) * stride + crop,) * 2


def test_overlaps_are_averaged():
    patches = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])
    stitched = stitch(patches, torch.tensor([[5, 7], [5, 8]]), crop=2)
    assert stitched.image.tolist() == [[0, 0.5, 1], [0, 0.5, 1]]
    assert (stitched.top, stitched.left) == (5, 7)


def test_smallest_crop_is_centred_and_leaves_no_gap():
    for N in range(4, 12):
        for stride in range(1, N // 2 + 1):
            crop = centre_crop(N, stride)
            assert (N - crop) % 2 == 0
            assert stride <= crop <= min(stride + 1, N)


def test_crops_that_leave_gaps_or_do_not_fit_are_refused():
    patches, positions = torch.ones(4, 4, 4), scan_positions(9, 4, 5)
    with pytest.raises(DataError, match="leaves"):
        stitch(patches, positions, crop=4)
    with pytest.raises(DataError, match="crop=5"):
        stitch(patches, positions, crop=5)
