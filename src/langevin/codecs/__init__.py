"""What lies between the data and what is diffused."""
