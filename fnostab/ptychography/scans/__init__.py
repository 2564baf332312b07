"""Measured scans: the scan file format, and the import of other formats with checks."""
