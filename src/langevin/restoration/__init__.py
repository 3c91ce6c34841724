"""Samples from a model and a measurement: restoration without training."""
