"""Commands of the ptychography task."""
