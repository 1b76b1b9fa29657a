"""Slow learners: a file each, and what two or more of them use."""
