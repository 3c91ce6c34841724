"""Feature extractors and distances between sets of images."""
