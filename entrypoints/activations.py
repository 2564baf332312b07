"""``mlflow run . -e activations``: activation drift against depth."""

import sys

from fnostab.cli import main

main(["activations", *sys.argv[1:]])
