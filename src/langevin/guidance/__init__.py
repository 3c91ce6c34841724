"""Guidance steers a denoiser; a guided denoiser is called like a plain one."""
