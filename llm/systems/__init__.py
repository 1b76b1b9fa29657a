"""Deployed systems: a model with a state beside its weights, such as contexts, soft tokens, another model's logits, cases or skills."""
