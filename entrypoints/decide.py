"""``mlflow run . -e decide``: judge the recorded trials."""

import sys

from fnostab.cli import main

main(["decide", *sys.argv[1:]])
