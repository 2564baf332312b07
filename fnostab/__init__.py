"""fnostab: does this change make training stable? Many seeds, every step recorded, one verdict."""

__version__ = "0.1.0"
