"""What a network is conditioned on beside the noise level: one file a condition."""
