"""Weights of other libraries under the names of our networks, and back."""
