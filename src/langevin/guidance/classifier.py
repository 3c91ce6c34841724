"""Classifier guidance."""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.diffusion.bound import last_level
from langevin.diffusion.classifier import NoisyClassifier
from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.level import broadcast_to
from langevin.diffusion.process import Prediction
from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import OptionError, UserError
from langevin.guidance.guidance import Guidance, require_same_images, require_same_process
from langevin.spec import DataSpec


class ClassifierGuidance(Guidance):
    """Moves predictions towards the requested class by the gradient of a classifier of noisy images.

    The model may be unconditional, or conditional on the same classes. ``g`` is the gradient of ``log p(y | x_t)``
    with respect to x_t:

    - ``form="score"`` is for every sampler: ``eps - scale sigma g``, and so ``x + scale sigma^2 / alpha g``.
    - ``form="mean"`` is for ancestral samplers: a step's mean is moved by ``scale`` times its variance times ``g``.

    A sampler's thresholding comes after it. Source: ADM (Dhariwal and Nichol 2021), algorithms 2 and 1.

    Args:
        load_classifier: gives the classifier that a run or a checkpoint holds.
        classifier: that run's folder, or a .ckpt file: of ``langevin train task=classifier``.
        scale: 0 is no guidance (and costs nothing more), 1 Bayes' rule, more exaggerates the class.
        form: see above.

    Raises:
        UserError: when there is no such classifier.
    """

    differentiable = False

    def __init__(
        self,
        load_classifier: Callable[[str, str], tuple[NoisyClassifier, DataSpec]],
        classifier: str,
        scale: Annotated[float, Ge(0)] = 1.0,
        form: Literal["mean", "score"] = "score",
    ) -> None:
        super().__init__()
        self.path = classifier
        self.classifier, self.spec = load_classifier("classifier", classifier)
        self.num_classes = self.spec.num_classes
        self.scale = scale
        self.moves_mean = form == "mean"

    def check(self, schedule: Schedule | None, spec: DataSpec | None, conditional: bool) -> None:
        """See `Guidance`."""
        require_same_process("classifier", self.path, self.classifier.schedule, schedule)
        if schedule is not None and not self.moves_mean and not last_level(schedule).alpha > 0:
            raise OptionError("form", "is score; allowed: mean, since the schedule ends without any signal to move")
        if spec is None:
            return
        require_same_images("classifier", self.path, self.spec, spec)
        if conditional and self.num_classes != spec.num_classes:
            raise OptionError(
                "classifier",
                f"is {self.path}; allowed: one for the model's {spec.num_classes} classes; it has {self.num_classes}",
            )

    def forward(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None) -> Prediction:
        """See `Guidance`; `cond` must hold labels."""
        if cond is None:
            raise UserError("guidance=classifier needs labels to guide towards, and none was given")
        prediction = denoiser(x_t, t, cond)
        if self.scale == 0:
            return prediction
        gradient = self.scale * self.gradient(x_t, t, cond["label"])
        if self.moves_mean:
            return prediction._replace(mean_gradient=gradient)
        alpha, sigma = denoiser.schedule(t)
        x = prediction.x + broadcast_to(sigma.square() / alpha, x_t) * gradient
        return prediction._replace(x=x, eps=prediction.eps - broadcast_to(sigma, x_t) * gradient)

    def gradient(self, x_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """The gradient of ``log p(y | x_t)`` by x_t: (B, C, H, W), for labels y (B,)."""
        # Lightning may sample in inference mode, whose tensors allow no gradient: they are copied out of it.
        with torch.inference_mode(False), torch.enable_grad():
            x, label = x_t.detach().clone().requires_grad_(), label.clone()
            chosen = self.classifier(x, t).gather(1, label[:, None])
            return torch.autograd.grad(chosen.sum(), x)[0]
