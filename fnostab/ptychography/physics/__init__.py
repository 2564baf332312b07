"""Physics of the measurement (probe, object, far field, photons), and how an image is judged."""
