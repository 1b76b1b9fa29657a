"""Restored layers: the recorded runs, the picture of one command, and that of all records."""
