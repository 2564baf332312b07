"""Records of trials on disk: written, read, judged, and put into tables."""
