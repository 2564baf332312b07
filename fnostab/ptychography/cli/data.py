"""``fnostab data``: import and show measured scans."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fnostab.errors import ConfigError
from fnostab.show.console import Console, say

if TYPE_CHECKING:
    from fnostab.ptychography.scans.scan_file import Scan

UNITS = ["pixel", "metre", "millimetre", "micrometre", "nanometre", "angstrom"]
FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group("data", epilog="Example: fnostab data import scan.cxi --out scan.h5")
def command() -> None:
    """Import measured scans, and show them.

    A scan file is HDF5 and is named in any study of ptychography by --set data.path=scan.h5.
    """


@command.command("import", epilog="Example: fnostab data import scan.npz --kind counts --out scan.h5")
@FILE
@click.option("--out", type=click.Path(path_type=Path), default="scan.h5", show_default=True, help="File to write.")
@click.option("--map", "mapped", metavar="NAME=PATH", multiple=True, help="Where to find an array; see above.")
@click.option("--kind", type=click.Choice(["counts", "intensity", "amplitude"]), help="What the patterns are.")
@click.option(
    "--positions", "of", type=click.Choice(["corner", "centre"]), help="Part of a patch that positions refer to."
)
@click.option("--unit", type=click.Choice(UNITS), help="Unit of the positions.")
@click.option(
    "--pixel-size", type=click.FloatRange(0, min_open=True), metavar="METRES", help="Pixel size of the object."
)
@click.option(
    "--zero-frequency", type=click.Choice(["centre", "corner"]), help="Place of the zero frequency in a pattern."
)
@click.option("--crop", type=int, metavar="PIXELS", help="Keep only the central PIXELS of each pattern.")
@click.option(
    "--orientation", metavar="NAME", help="Orientation of the positions, as in +row,-column.  [default: the best fit]"
)
@click.option("--keep-probe", is_flag=True, help="Keep the file's probe, not the one that ePIE refines.")
@click.option(
    "--sweeps", type=click.IntRange(0), default=30, show_default=True, help="Sweeps of ePIE; 0: no reference object."
)
@click.option("--far-field", is_flag=True, help="Treat the patterns as far-field, whatever the Fresnel number.")
def import_(file: Path, out: Path, mapped: tuple[str, ...], orientation: str | None, **given: Any) -> None:
    """Convert a file of another program to a scan file.

    Reads NPZ files of PtychoPINN and tike (also compressed with bzip2 or gzip), CXI and NXcxi_ptycho, and any NPZ or
    HDF5 file whose arrays --map names: diffraction, probe, positions (or rows and columns), object, and mask (nonzero
    pixels measure) or bad (nonzero pixels do not). PATH is a name in FILE or, as OTHER_FILE:PATH, in another file; in
    HDF5 chunks/*/data joins all arrays that match. Prints what it read, assumed, checked and ignored, and draws a
    figure beside the scan file.
    """
    from fnostab.ptychography.scans.importing import ImportOptions, import_scan
    from fnostab.ptychography.scans.layouts import MAPPED
    from fnostab.ptychography.scans.orientation import ORIENTATIONS
    from fnostab.ptychography.scans.scan_file import check_place, write_scan

    if out.exists() and file.exists() and out.samefile(file):
        raise ConfigError(f"--out {out} is the file that is read: name another")
    check_place(out)
    places: dict[str, str] = {}
    for each in mapped:
        name, equals, place = each.partition("=")
        if not (equals and place) or name not in MAPPED:
            raise ConfigError(f"--map {each}: expected NAME=PATH, NAME one of {', '.join(MAPPED)}")
        if name in places:
            raise ConfigError(f"--map {name} is given twice, as {places[name]} and {place}: leave out one of them")
        places[name] = place
    if orientation is not None and orientation not in ORIENTATIONS:
        raise ConfigError(f"--orientation {orientation} is not known; accepted: {' '.join(ORIENTATIONS)}")
    console = Console()
    say(console, f"reading {file}, which can take minutes ...")
    imported = import_scan(file, ImportOptions(mapped=places, orientation=orientation, **given))
    say(console, *imported.lines)
    write_scan(imported.scan, out)
    named = shlex.quote(f"data.path={out}")
    say(console, f"wrote {out} and {_draw(imported.scan, out)}", f"next: fnostab run stage_a --set {named}")


@command.command("show", epilog="Example: fnostab data show scan.h5")
@FILE
def show(file: Path) -> None:
    """Describe a scan file, and draw its figure again."""
    from fnostab.ptychography.scans.scan_file import probe_width, read_scan

    scan = read_scan(file)
    n, side, _ = scan.diffraction.shape
    size = "of unknown size" if scan.pixel_size is None else f"of {scan.pixel_size:.4g} m"
    console = Console()
    total = scan.intensity.sum(axis=(1, 2)).mean()
    span = scan.positions.max(axis=0) - scan.positions.min(axis=0)
    say(
        console,
        f"{n} patterns of {side} x {side}, {scan.kind}, {total:.4g} a pattern; {int((~scan.mask).sum())} pixels masked",
        f"positions over {span[0]:.1f} x {span[1]:.1f} pixels {size}; the probe is {probe_width(scan.probe):.1f} wide",
        *(f"{name}: {source}" for name, source in scan.sources.items()),
    )
    if scan.object is None:
        say(
            console,
            "no object to compare reconstructions with: two halves of the test area are compared with each other",
        )
    say(console, f"drew {_draw(scan, file)}")


def _draw(scan: Scan, beside: Path) -> Path:
    from fnostab.errors import DataError
    from fnostab.ptychography.figures.scan import scan_figure
    from fnostab.ptychography.scans.scan_file import FIGURE_MARK, check_figure

    path = check_figure(beside)
    try:
        scan_figure(scan).savefig(path, metadata={"Description": FIGURE_MARK})
    except OSError as error:
        path.unlink(missing_ok=True)
        raise DataError(
            f"can't write {path}: {error.strerror or error}; {beside} is complete: "
            f"`fnostab data show {shlex.quote(str(beside))}` draws it"
        ) from error
    return path
