"""``mlflow run . -e activations``: measure activation drift with depth."""

from entrypoints import arguments
from fnostab.cli import main

main(["activations", *arguments()])
