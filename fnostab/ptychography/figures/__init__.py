"""Figures of the ptychography task."""
