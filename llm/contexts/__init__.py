"""The fast channel: contexts that evolve by reflection."""
