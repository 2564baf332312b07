"""A small scan with fractional positions, and the files that other programs would write of it."""

import bz2
import io
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from fnostab.ptychography.physics.probe import disk_probe

SIDE = 16
PHOTONS = 3e4
WAVELENGTH, DISTANCE, DETECTOR_PIXEL = 2e-10, 2.0, 7.5e-5
PIXEL = WAVELENGTH * DISTANCE / (SIDE * DETECTOR_PIXEL)


@dataclass(frozen=True)
class SmallScan:
    counts: np.ndarray  # (n, 16, 16), zero frequency in the centre
    probe: np.ndarray
    corners: np.ndarray  # (n, 2), fractional
    object: np.ndarray

    @property
    def tike(self):
        scan = (self.corners - self.corners.mean(axis=0)).astype(np.float32)
        data = np.fft.ifftshift(self.counts, axes=(1, 2)).astype(np.float32)
        return {"data": data[None], "probe": self.probe[None, None, None, None], "scan": scan[None]}

    @property
    def ptychopinn(self):
        centres = self.corners + SIDE // 2
        return {
            "diffraction": np.sqrt(self.counts / PHOTONS).astype(np.float32),
            "probeGuess": self.probe,
            "objectGuess": self.object,
            "xcoords": centres[:, 1],
            "ycoords": centres[:, 0],
            "xcoords_start": centres[:, 1],
        }


def simulated(side=SIDE, extent=56, step=4, seed=0):
    """Far-field counts of a smooth complex object under a curved probe, on a jittered grid."""
    random = np.random.default_rng(seed)
    corners = np.stack(np.meshgrid(*[np.arange(0, extent - side - 1, step)] * 2, indexing="ij"), -1).reshape(-1, 2)
    corners = np.clip(corners + random.uniform(-1, 1, corners.shape), 0, extent - side - 1.01)
    probe = disk_probe(side, 0.25, 3.0).numpy()
    amplitude = gaussian_filter(random.normal(size=(extent, extent)), 1.5)
    phase = gaussian_filter(random.normal(size=(extent, extent)), 1.5)
    image = ((1 + 0.2 * amplitude / amplitude.std()) * np.exp(0.5j * phase / phase.std())).astype(np.complex64)
    frequencies = np.fft.fftfreq(side)
    patterns = []
    for row, column in corners:
        ramp = np.exp(-2j * np.pi * (frequencies[:, None] * (row % 1) + frequencies * (column % 1)))
        patch = image[int(row) : int(row) + side, int(column) : int(column) + side]
        wave = np.fft.ifft2(np.fft.fft2(probe) * ramp) * patch
        patterns.append(np.abs(np.fft.fftshift(np.fft.fft2(wave, norm="ortho"))) ** 2)
    intensity = np.array(patterns)
    counts = random.poisson(intensity * PHOTONS / intensity.sum(axis=(1, 2)).mean())
    return SmallScan(counts, probe, corners, image)


def write_npz(path, arrays):
    """As numpy writes it, packed by bzip2 if the name says so."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    path.write_bytes(bz2.compress(content.getvalue()) if path.suffix == ".bz2" else content.getvalue())
    return path


def write_cxi(path, scan, leave_out=(), **changed):
    """As writers of CXI do: metres, joules, (x, y, z) translations, a mask in which 0 is good."""
    import h5py

    xyz = np.concatenate([scan.corners[:, ::-1], np.zeros((len(scan.corners), 1))], axis=1) * PIXEL
    content = {
        "entry_1/instrument_1/detector_1/data": scan.counts.astype(np.uint16),
        "entry_1/instrument_1/detector_1/mask": np.zeros(scan.probe.shape, np.uint32),
        "entry_1/instrument_1/detector_1/distance": DISTANCE,
        "entry_1/instrument_1/detector_1/x_pixel_size": DETECTOR_PIXEL,
        "entry_1/instrument_1/detector_1/y_pixel_size": DETECTOR_PIXEL,
        "entry_1/instrument_1/source_1/energy": 1.98644586e-25 / WAVELENGTH,
        "entry_1/instrument_1/source_1/probe": scan.probe,
        "entry_1/sample_1/geometry_1/translation": xyz,
    }
    places = {place.rpartition("/")[2]: place for place in content}
    content |= {places[name]: value for name, value in changed.items()}
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        for place, value in content.items():
            if place.rpartition("/")[2] not in leave_out:
                file[place] = value
        if "data" not in leave_out:
            file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
    return path
