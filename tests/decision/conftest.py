"""Trials in shorthand."""
