"""The commands that are configured by Hydra: `langevin train`, `sample`, `evaluate` and `convert`."""
