"""``python -m fnostab`` is ``fnostab``."""

from fnostab.cli import main

if __name__ == "__main__":
    main()
