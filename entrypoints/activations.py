"""``mlflow run . -e activations``: activation drift against depth."""

from entrypoints import arguments
from fnostab.cli import main

main(["activations", *arguments()])
