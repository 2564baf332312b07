"""What MLproject starts."""
