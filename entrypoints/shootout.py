"""``mlflow run . -e shootout``: a study, and the verdict at its end."""

from entrypoints import arguments
from fnostab.cli import main

main(["run", *arguments(), "--decide"])
