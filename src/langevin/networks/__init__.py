"""Networks map (x, noise level, condition) to a tensor and do not depend on diffusion."""
