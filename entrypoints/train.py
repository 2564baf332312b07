"""``mlflow run . -e train``: train one trial of a study, recorded as in the study."""

from entrypoints import arguments
from fnostab.cli import main

main(["train", *arguments()])
