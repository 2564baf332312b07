"""``mlflow run . -e train``: one trial of a study, recorded as the study would."""

import sys

from fnostab.cli import main

main(["trial", *sys.argv[1:]])
