"""Predictions from the base alone, the runs that test them, and the verdicts: a chapter is a file."""
