"""The manuscript: ``python -m fstsim.paper.manuscript`` typesets it from the records."""
