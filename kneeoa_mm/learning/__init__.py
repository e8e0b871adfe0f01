"""Knee images and cohort tables to models, predictions and saliency."""
