"""The built-in task: hybrid FNO networks for ptychography."""
