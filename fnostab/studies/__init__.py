"""What runs many trials: study files, launchers, progress."""
