"""``mlflow run . -e shootout``: run a study and judge it."""

from entrypoints import arguments
from fnostab.cli import main

main(["run", *arguments(), "--decide"])
