"""Names of the metrics that only this task records."""

# At every validation
SPREAD = "val/spread"  # standard deviation of the stitched complex field, relative to the truth's
DETAIL_CORRELATION = "val/detail_correlation"  # correlation of the field's details with the truth's
PATCH_VARIATION = "val/patch_variation"  # standard deviation between complex patches, relative to the mean amplitude
TWIN_SHARE = "val/twin_share"  # share of patches closer to the twin image than to the truth
VAL_SSIM_AMP = "val/ssim_amp"
VAL_SSIM_PHASE = "val/ssim_phase"  # only if the object has a phase

# Once, at the end of the trial
SSIM_AMP = "test/ssim_amp"
SSIM_PHASE = "test/ssim_phase"
MAE_AMP = "test/mae_amp"
MAE_PHASE = "test/mae_phase"
CONSTANT_SSIM_AMP = "test/ssim_amp_constant"
CONSTANT_SSIM_PHASE = "test/ssim_phase_constant"
FRC_HALF = "test/frc_0.5"  # spatial frequency at which the FRC with the truth drops below 0.5, relative to Nyquist
FRC_SEVENTH = "test/frc_1_7"
PSNR_AMP = "test/psnr_amp"  # dB
PSNR_PHASE = "test/psnr_phase"
PUBLISHED_SSIM_PHASE = "test/ssim_phase_published"  # data range 2 pi, which favours a constant
CONSTANT_PUBLISHED_SSIM_PHASE = "test/ssim_phase_published_constant"

FRC_HALVES = "test/frc_halves"  # without a reference: FRC of two halves of the test patterns, threshold 1/7

PHASE_METRICS = (SSIM_PHASE, MAE_PHASE)
