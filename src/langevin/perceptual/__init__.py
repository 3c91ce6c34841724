"""Distances of images as people see them, by the activations of a frozen network: for losses, and a metric."""
