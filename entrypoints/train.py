"""``mlflow run . -e train``: one trial of a study, recorded as the study would."""

from entrypoints import arguments
from fnostab.cli import main

main(["train", *arguments()])
