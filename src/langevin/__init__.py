"""Langevin: controlled experiments on diffusion models."""

__version__ = "0.1.0"
