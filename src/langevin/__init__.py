"""Langevin: controlled experiments on image diffusion models."""

__version__ = "0.1.0"
