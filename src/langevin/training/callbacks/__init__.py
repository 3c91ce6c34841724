"""Everything periodic in a run: one file a callback."""
