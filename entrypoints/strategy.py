"""``mlflow run . -e strategy``: the whole chain of studies, and its report."""

import sys

from fnostab.cli import main

main(["run", "strategy", *sys.argv[1:]])
