"""Run the command line as ``python -m fnostab``."""

from fnostab.cli import main

if __name__ == "__main__":
    main()
