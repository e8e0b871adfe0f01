"""Jobs that join the wings, one a file."""
