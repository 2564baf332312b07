"""Physics of the measurement (probe, object, far field, photons), and image quality metrics."""
