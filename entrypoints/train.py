"""``mlflow run . -e train``: one trial of a study, recorded as the study would."""

import sys

from fnostab.cli import main

main(["train", *sys.argv[1:]])
