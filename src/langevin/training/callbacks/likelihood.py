"""Bits per dimension of held-out images during training."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from langevin.diffusion.draws import SampleDraws, conditioning_draws
from langevin.errors import UserError
from langevin.likelihood.base import Likelihood
from langevin.training.module import DiffusionModule


class MeasureLikelihoods(Callback):
    """Measures the EMA weights at every validation, on its images.

    An image has the same noise in every validation and on any number of processes, and nothing is drawn from the
    random numbers of training. As in `langevin evaluate`, the model computes in float32 whatever
    ``trainer.precision`` is.
    They are logged as `val/NAME`, in bits a dimension, and their parts as `val/NAME/PART`.

    Args:
        likelihoods: by their names, begun for the model's schedule.
        seed: the noise's seed.
    """

    def __init__(self, likelihoods: Mapping[str, Likelihood], seed: int = 0) -> None:
        self.likelihoods = likelihoods
        self.seed = seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that there will be images.

        Raises:
            UserError: when there is no validation.
        """
        if not sum(trainer.num_val_batches):
            raise UserError(
                f"likelihoods=[{','.join(self.likelihoods)}]: are measured at each validation, and there is none; "
                "set trainer.val_check_interval, with data that has a test split, or leave likelihoods out"
            )

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset."""
        for likelihood in self.likelihoods.values():
            likelihood.to(pl_module.device).reset()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add a batch."""
        assert isinstance(pl_module, DiffusionModule)
        x, indices = batch["x"], batch["index"].tolist()
        if len(x) == 0:  # the last batch has fewer images than there are processes
            return
        denoiser = pl_module.ema_model
        derived = denoiser.derive(x, conditioning_draws(self.seed, indices, x.shape[1:], x.device), sampling=True)
        cond = denoiser.condition({**batch, **derived})
        for likelihood in self.likelihoods.values():
            likelihood.update(denoiser, x, cond, SampleDraws(self.seed, indices, x.shape[1:], x.device))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means over all processes."""
        assert isinstance(pl_module, DiffusionModule)
        for name, likelihood in self.likelihoods.items():
            values = likelihood.compute()
            logged = {f"val/{name}": values["bits_per_dim"]}
            pl_module.log_same(logged | {f"val/{name}/{part}": values[part] for part in likelihood.parts})
