"""Tracking stores: addresses, databases, errors in one line."""
