"""Networks map (x, noise level, condition) to a tensor and know nothing of diffusion."""
