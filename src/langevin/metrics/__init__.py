"""Distances between sets of images, and other measures of them: one file a metric."""
