"""A value and how it came about: metrics over samples, their protocol, and the files that hold both."""
