"""A page on this machine that samples from one or two trained runs."""
