"""Given checkpoints against the base they came from: drift, forgetting, flips and distance of weights, on given problems."""
