"""Studies as they are written: files, arms, settings."""
