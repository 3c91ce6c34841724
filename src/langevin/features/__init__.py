"""From pixels to the features that the metrics compare: one file an extractor."""
