"""``mlflow run . -e shootout``: a study, and the verdict at its end."""

import sys

from fnostab.cli import main

main(["run", *sys.argv[1:], "--decide"])
