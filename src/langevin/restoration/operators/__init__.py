"""Linear operators: what a measurement tells of a sample."""
