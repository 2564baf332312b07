"""``mlflow run . -e strategy``: run the whole chain of studies and write its report."""

from entrypoints import arguments
from fnostab.cli import main

main(["run", "strategy", *arguments()])
