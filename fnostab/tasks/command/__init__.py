"""The task `command`: a trial runs any program, filled in from a template."""
