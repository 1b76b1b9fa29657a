"""Any causal LM as a policy, token in and token out: loading, sampling, scoring, shared prompts and trees."""
