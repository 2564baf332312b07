"""What a trial leaves on disk, and what is known of it."""
