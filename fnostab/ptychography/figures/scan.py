"""Figure of a measured scan: mean pattern, mask, positions, probe and object."""

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from fnostab.figures.style import COLOURS, STYLE
from fnostab.ptychography.scans.scan_file import Scan, probe_width


def scan_figure(scan: Scan) -> Figure:
    """Draw a scan: mean pattern, mask and positions above; probe, object amplitude and object phase below.

    The circle among the positions has the probe's width. Rows point downward for object and positions.
    """
    side = scan.probe.shape[0]
    mean = scan.intensity.mean(axis=0, dtype=np.float64)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(9, 6), layout="constrained")
        axes = figure.subplots(2, 3)
        least = mean[mean > 0].min(initial=mean.max())
        shown = axes[0, 0].imshow(np.where(scan.mask, mean, np.nan), norm=LogNorm(least, mean.max()), cmap="viridis")
        figure.colorbar(shown, ax=axes[0, 0], shrink=0.8)
        axes[0, 0].set_title(f"mean pattern / {scan.kind}")
        axes[0, 1].imshow(scan.mask, cmap="gray", vmin=0, vmax=1.2)
        axes[0, 1].set_title(f"mask: {int((~scan.mask).sum())} pixels left out")
        centres = scan.positions + side // 2
        axes[0, 2].plot(centres[:, 1], centres[:, 0], ".", color=COLOURS[0], markersize=3)
        circle = matplotlib.patches.Circle(
            tuple(centres.mean(axis=0)[::-1]), probe_width(scan.probe) / 2, fill=False, color=COLOURS[4], linewidth=1.5
        )
        axes[0, 2].add_patch(circle)
        axes[0, 2].set(
            aspect="equal", xlabel="column / pixel", ylabel="row / pixel", title="positions and probe's width"
        )
        axes[0, 2].invert_yaxis()
        axes[1, 0].imshow(np.abs(scan.probe), cmap="viridis")
        axes[1, 0].set_title("probe, amplitude")
        if scan.object is None:
            for ax in axes[1, 1:]:
                ax.set_axis_off()
        else:
            (top, left), (bottom, right) = centres.min(axis=0).astype(int), centres.max(axis=0).astype(int) + 1
            seen = scan.object[top:bottom, left:right]
            limits = np.percentile(np.abs(seen), [1, 99])
            shown = axes[1, 1].imshow(np.abs(seen), cmap="viridis", vmin=limits[0], vmax=limits[1])
            figure.colorbar(shown, ax=axes[1, 1], shrink=0.8)
            axes[1, 1].set_title("object, amplitude")
            phase = np.angle(seen * np.exp(-1j * np.angle(seen.sum())))
            shown = axes[1, 2].imshow(phase, cmap="viridis")
            figure.colorbar(shown, ax=axes[1, 2], shrink=0.8)
            axes[1, 2].set_title("object, phase / rad")
        for ax in (axes[0, 0], axes[0, 1], axes[1, 0], axes[1, 1], axes[1, 2]):
            ax.set(xticks=[], yticks=[])
    return figure
