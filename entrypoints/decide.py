"""``mlflow run . -e decide``: the verdict on what is recorded."""

import sys

from fnostab.cli import main

main(["decide", *sys.argv[1:]])
