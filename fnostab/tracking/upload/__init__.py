"""Journals on their way into MLflow."""
