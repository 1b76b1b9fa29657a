"""One training run: its configuration, the run itself, checkpoints, and what is measured."""
