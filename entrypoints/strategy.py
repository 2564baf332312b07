"""``mlflow run . -e strategy``: the whole chain of studies, and its report."""

from entrypoints import arguments
from fnostab.cli import main

main(["run", "strategy", *arguments()])
