"""What `langevin study` does: a grid of runs from one small file, and the table of its results."""
