"""Which runs an experiment makes."""
