"""Figures of the simulator and the theory, in paper order in `catalogue`."""
