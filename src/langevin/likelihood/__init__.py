"""How probable a model finds images, in bits a dimension: one file an estimate."""
