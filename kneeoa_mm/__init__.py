"""Knee osteoarthritis research toolkit: radiographs to progression models and cohort analysis."""

__version__ = "0.1.0"
