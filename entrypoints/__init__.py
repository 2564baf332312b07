"""Modules that MLproject starts."""
