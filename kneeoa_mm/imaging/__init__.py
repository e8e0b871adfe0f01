"""Studies to single-knee images."""
