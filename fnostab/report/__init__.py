"""What shows a study: verdicts for people, programs and web pages."""
