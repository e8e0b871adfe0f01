"""A phantom cohort with a known truth."""
