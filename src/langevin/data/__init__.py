"""Image sources, the uint8 cache and the LightningDataModule."""
