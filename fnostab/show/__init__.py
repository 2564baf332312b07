"""Show a running study in a terminal, and notify people of its end."""
