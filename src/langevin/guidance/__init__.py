"""Guidance wraps a denoiser and is itself called like one."""
