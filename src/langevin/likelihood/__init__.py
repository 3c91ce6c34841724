"""How probable a model finds pictures, in bits a dimension: one file an estimate."""
