"""Source tables to one row a knee at baseline, with its outcomes."""
