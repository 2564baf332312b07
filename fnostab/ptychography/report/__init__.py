"""Reports of the ptychography task."""
