"""Guidance steers a denoiser; a denoiser under guidance is called like one."""
