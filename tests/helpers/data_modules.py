"""Batches of a data module, as a trainer would ask for them."""

import itertools


def batches(module, count, trainer=None):
    """The first batches of training, from the step of a trainer on."""
    module.trainer = trainer
    return list(itertools.islice(module.train_dataloader(), count))
