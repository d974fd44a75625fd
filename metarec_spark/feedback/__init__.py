"""What became of yesterday's recommendations."""
