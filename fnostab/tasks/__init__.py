"""Tasks: what a trial trains. The contract is in `fnostab.tasks.contract`, the list in `fnostab.tasks.registry`."""
