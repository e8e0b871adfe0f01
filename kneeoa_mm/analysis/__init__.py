"""Predictions and outcomes to metrics, survival analyses, figures and a report."""
