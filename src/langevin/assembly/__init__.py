"""From a config to objects: the only place that knows both Hydra and the classes."""
