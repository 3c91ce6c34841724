"""The LightningModule, the EMA weights and the callbacks."""
