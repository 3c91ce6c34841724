"""Few trainable weights beside those of a trained, frozen network."""
