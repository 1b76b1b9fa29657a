"""What a training run will learn and forget, before it is run: prompt by prompt, from a few gradients (coarse Adam)."""
