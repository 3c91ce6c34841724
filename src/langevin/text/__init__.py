"""What of a caption a network is given: encoders of text."""
