"""The parts of a network, one file each; every one maps features and an embedding to features."""
