"""Names under which trials of this task record what the engine does not know."""

__all__ = [
    "AMPLITUDE_SPREAD",
    "CONSTANT_SSIM_AMP",
    "CONSTANT_SSIM_PHASE",
    "MAE_AMP",
    "MAE_PHASE",
    "PATCH_VARIATION",
    "PHASE_METRICS",
    "SSIM_AMP",
    "SSIM_PHASE",
    "TWIN_SHARE",
    "VAL_SSIM_AMP",
]

# At every validation
AMPLITUDE_SPREAD = "val/amplitude_spread"  # of the stitched prediction, over the truth's
PATCH_VARIATION = "val/patch_variation"  # from patch to patch, over the mean amplitude
TWIN_SHARE = "val/twin_share"  # of the patches, those nearer to the truth's twin image than to the truth
VAL_SSIM_AMP = "val/ssim_amp"

# Once, at the end
SSIM_AMP = "test/ssim_amp"
SSIM_PHASE = "test/ssim_phase"
MAE_AMP = "test/mae_amp"
MAE_PHASE = "test/mae_phase"
CONSTANT_SSIM_AMP = "test/ssim_amp_constant"
CONSTANT_SSIM_PHASE = "test/ssim_phase_constant"

PHASE_METRICS = (SSIM_PHASE, MAE_PHASE)
