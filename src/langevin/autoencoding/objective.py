"""What an autoencoder is trained by."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from langevin.autoencoding.model import AutoencoderModel
from langevin.diffusion.draws import BatchDraws
from langevin.diffusion.objective import Objective
from langevin.networks.patch_discriminator import PatchDiscriminator
from langevin.perceptual.perceptual import PerceptualDistance
from langevin.unsaved import leave_out

LARGEST_WEIGHT = 1e4
"""Of the adversarial loss, before `adversarial_weight`: the clamp of CompVis' code, where the error is a sum."""
GAIN = 2.0**16
"""Of losses whose gradients are compared: in half precision those of a mean over an image's values would vanish."""


class Reconstruction(Objective[AutoencoderModel]):
    """The error of the reconstruction, the latents' penalty, and a discriminator's opinion.

    Of an image it is ``error + perceptual_weight * distance + penalty + weight * lam * g``, where the error is a mean
    over the image's values and the penalty the network's own; g is minus the mean of the discriminator's logits of the
    reconstruction, and lam makes its gradient at the decoder's last layer as large as that of error and distance:
    ``clamp(D |grad (error + distance)| / (|grad g| + 1e-4), 0, 1e4) / D``, with D the number of values of an image.
    That is the loss of latent diffusion divided by D. The discriminator is trained in the same step and by the same
    optimizer, by half the hinge loss, on reconstructions through which no gradient passes; LDM takes turns instead.

    Sources: Esser et al. 2021, equations 4 to 7; Rombach et al. 2022, equation 25.

    Args:
        perceptual: the distance of features; None for none.
        discriminator: tells images from reconstructions; None for none.
        pixel: the error of a value: absolute (l1) or squared (l2).
        perceptual_weight: how much the distance counts.
        adversarial_weight: how much the adversarial loss counts.
        adversarial_start: the first optimizer step of the adversarial loss and of the discriminator's training.
    """

    trains = AutoencoderModel
    logs = (
        *("loss", "mse", "kl", "codebook", "perceptual"),
        *("discriminator", "logits_real", "logits_made", "adversarial_weight"),
    )

    def __init__(
        self,
        perceptual: PerceptualDistance | None = None,
        discriminator: PatchDiscriminator | None = None,
        pixel: Literal["l1", "l2"] = "l1",
        perceptual_weight: Annotated[float, Gt(0)] = 1.0,
        adversarial_weight: Annotated[float, Gt(0)] = 0.5,
        adversarial_start: Annotated[int, Ge(0)] = 50_000,
    ) -> None:
        super().__init__()
        self.perceptual = perceptual
        self.discriminator = discriminator
        self.pixel = pixel
        self.perceptual_weight = perceptual_weight
        self.adversarial_weight = adversarial_weight
        self.adversarial_start = adversarial_start
        if perceptual is not None:
            leave_out(self, perceptual, "perceptual.")

    def forward(self, model: AutoencoderModel, batch: Mapping[str, Tensor], draws: BatchDraws) -> dict[str, Tensor]:
        """See `Objective`; in a validation the latents are their means, and no discriminator is asked."""
        x, shape = batch["x"], model.network.latent_shape
        made = model(x, (lambda: draws.normal(shape)) if self.training else None)
        difference = made.x.float() - x
        error = (difference.abs() if self.pixel == "l1" else difference.square()).flatten(1).mean(1)
        terms = {"mse": difference.detach().square().flatten(1).mean(1), **made.terms}
        if self.perceptual is not None:
            distance = self.perceptual(made.x, x)
            terms["perceptual"] = distance.detach()
            error = error + self.perceptual_weight * distance
        loss = error + made.penalty
        if self.discriminator is not None and self.training:
            loss = loss + self._adversarial(self.discriminator, model, x, made.x, error, draws, terms)
        return {"loss": loss, **terms}

    def parameters_by_role(self, model: AutoencoderModel) -> dict[str, Iterable[nn.Parameter]]:
        """See `Objective`: the autoencoder, and the discriminator."""
        roles: dict[str, Iterable[nn.Parameter]] = {"model": model.network.parameters()}
        if self.discriminator is not None:
            roles["discriminator"] = self.discriminator.parameters()
        return roles

    def _adversarial(
        self,
        discriminator: PatchDiscriminator,
        model: AutoencoderModel,
        x: Tensor,
        made: Tensor,
        error: Tensor,
        draws: BatchDraws,
        terms: dict[str, Tensor],
    ) -> Tensor:
        """What a discriminator adds to the loss of each image (B,), its own loss included; adds to `terms`."""
        of_real, of_made = (discriminator(images) for images in (x, made.detach()))
        own = hinge(of_real, of_made)
        terms["discriminator"] = own.detach()
        terms |= {"logits_real": opinion(of_real.detach()), "logits_made": opinion(of_made.detach())}
        if self.step < self.adversarial_start:
            return 0 * own  # not left out: with several processes every parameter needs its gradient
        frozen = {name: tensor.detach() for name, tensor in discriminator.state_dict(keep_vars=True).items()}
        g = -opinion(functional_call(discriminator, frozen, (made,)))
        weight = adaptive_weight(error.mean(), g.mean(), model.network.last_weight, draws, x[0].numel())
        terms["adversarial_weight"] = weight.expand(len(x))
        return self.adversarial_weight * weight * g + own


def opinion(logits: Tensor) -> Tensor:
    """The mean of the logits (B, 1, h, w) of each image: (B,)."""
    return logits.flatten(1).mean(1)


def hinge(of_real: Tensor, of_made: Tensor) -> Tensor:
    """Half the hinge loss (B,) of a discriminator's logits (B, 1, h, w) of images and of reconstructions."""
    return 0.5 * (functional.relu(1 - of_real) + functional.relu(1 + of_made)).flatten(1).mean(1)


def adaptive_weight(error: Tensor, adversarial: Tensor, last: Tensor, draws: BatchDraws, values: int) -> Tensor:
    """The weight that makes the gradients of two losses at the last layer equally long; Esser et al. 2021, equation 7.

    Args:
        error: the mean over this process's images of an error that is a mean over their values.
        adversarial: the mean of another loss.
        last: the weight of the last layer.
        draws: of the batch, which knows the other processes: the gradients are those of the whole batch.
        values: D, how many values an image has: CompVis' error, and so its weight, is D times as large.

    Returns:
        a number without gradient, in [0, 1e4 / D].
    """
    norms = [
        draws.mean(torch.autograd.grad(GAIN * loss, last, retain_graph=True)[0].float()).norm() / GAIN
        for loss in (error, adversarial)
    ]
    # Of D times the error over the other: the same 1e-4 and 1e4 as there, and then divided by D.
    return (values * norms[0] / (norms[1] + 1e-4)).clamp(0, LARGEST_WEIGHT) / values
