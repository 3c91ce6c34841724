"""Noise to images: the one sampling loop, its timestep spacings, and one file per sampler."""
