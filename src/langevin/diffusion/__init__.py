"""The mathematics of diffusion: schedules, predictions, losses. Depends on torch alone."""
