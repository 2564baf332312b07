"""Custom parts of the candidates that were not chosen; study files name them by dotted path."""
