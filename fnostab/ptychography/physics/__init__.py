"""Physics of the measurement (probe, object, far field, photons), and how an image is judged."""

from fnostab.ptychography.physics.alignment import Aligned, align
from fnostab.ptychography.physics.detector import amplitude_of, detect, photon_scale
from fnostab.ptychography.physics.evaluation import (
    PublishedScores,
    Scores,
    constant_scores,
    detail_correlation,
    evaluate,
    field_spread,
    patch_variation,
    published_scores,
)
from fnostab.ptychography.physics.far_field import far_field
from fnostab.ptychography.physics.frc import fourier_ring_correlation, frc_resolution
from fnostab.ptychography.physics.losses import constant_output_loss, mae_loss, poisson_loss
from fnostab.ptychography.physics.objects import line_object
from fnostab.ptychography.physics.probe import disk_probe, load_probe, make_probe
from fnostab.ptychography.physics.scan import Stitched, centre_crop, extract_patches, scan_positions, stitch
from fnostab.ptychography.physics.twin import twin_share

__all__ = [
    "Aligned",
    "PublishedScores",
    "Scores",
    "Stitched",
    "align",
    "amplitude_of",
    "centre_crop",
    "constant_output_loss",
    "constant_scores",
    "detail_correlation",
    "detect",
    "disk_probe",
    "evaluate",
    "extract_patches",
    "far_field",
    "field_spread",
    "fourier_ring_correlation",
    "frc_resolution",
    "line_object",
    "load_probe",
    "mae_loss",
    "make_probe",
    "patch_variation",
    "photon_scale",
    "poisson_loss",
    "published_scores",
    "scan_positions",
    "stitch",
    "twin_share",
]
