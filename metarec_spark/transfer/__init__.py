"""What other domains lend to a new or thin one, tried by modes, and refused where it does not help."""
