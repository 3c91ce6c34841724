"""Noise to images: the one sampling loop, its time grids, and one file a sampler."""
