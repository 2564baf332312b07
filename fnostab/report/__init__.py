"""Show a study's verdict to people and programs, as text, JSON and web pages."""
