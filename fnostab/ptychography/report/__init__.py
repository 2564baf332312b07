"""Report panels and documents of the ptychography task."""
