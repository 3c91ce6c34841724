"""Langevin's own part: a fit as `train.py` makes it, its network alone, what surrounds the network, its sampling."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from experiments.speed.clock import Clock, Times, Turn, one_round
from experiments.speed.work import NetworkStep, Watch, Work, fill_zeros
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from torch import Tensor, nn

from langevin.assembly.check import mistakes_in
from langevin.assembly.components import make_codec, make_generator, make_model
from langevin.assembly.make import make
from langevin.assembly.run import make_data, make_module, make_trainer
from langevin.cli import force_add_override
from langevin.config.validate import CONF, ConfigError, groups_of
from langevin.data.module import Batch, DataModule
from langevin.diffusion.denoiser import Denoiser
from langevin.errors import UserError
from langevin.networks.network import Network
from langevin.training.callbacks.checkpoint import Checkpoint
from langevin.training.module import DiffusionModule

NEVER = 1e9
"""Minutes."""


def composed(overrides: Sequence[str]) -> DictConfig:
    """The config of a command line of `train.py`.

    Raises:
        UserError: when it has mistakes.
    """
    own = groups_of("train")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            cfg = compose("train", [force_add_override(override, own) for override in overrides])
        except HydraException as error:
            raise UserError(str(error)) from error
    if mistakes := mistakes_in(cfg):
        raise ConfigError(mistakes)
    return cfg


class Fit(NamedTuple):
    """What a run is made of, ready to begin."""

    module: DiffusionModule
    data: DataModule
    trainer: Trainer

    def run(self, *callbacks: Callback) -> None:
        """Train, with these callbacks after all others."""
        self.trainer.callbacks.extend(callbacks)
        self.trainer.fit(self.module, datamodule=self.data)


def fit_of(work: Work, run_dir: Path, steps: int, network: Mapping[str, Any] | None = None) -> Fit:
    """A run of `train.py`, of so many steps; it writes no checkpoint before the end.

    Args:
        work: the work.
        run_dir: the run's folder.
        steps: optimizer steps.
        network: the config of another network.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")  # advice
    cfg = composed(work.overrides)
    cfg.trainer.max_steps = steps
    if "checkpoint" in (cfg.callbacks or {}):
        cfg.callbacks.checkpoint.every_minutes = NEVER
    if network is not None:
        cfg.model = network
    data = data_of(cfg)
    module = module_of(cfg)
    return Fit(module, data, make_trainer(cfg, run_dir, data.spec, data, module.codec))


class Interleaved(Callback):
    """Stops a fit's clock every so many steps, lets others take their turns, and starts it again.

    The clock runs from the end of one turn of the fit's to the end of its next: all that Lightning and the callbacks do
    belongs to it. To be the last of the callbacks.

    Args:
        name: the fit's name among the others'.
        steps: optimizer steps of a turn.
        others: the others.
        device: "cpu" or "cuda".

    Attributes:
        times: how long a step takes, round by round.
    """

    def __init__(self, name: str, steps: int, others: Mapping[str, Turn], device: str) -> None:
        self.name = name
        self.steps = steps
        self.others = others
        self.clock = Clock(device)
        self.times = Times()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.rounds = 0
        self.began = self.clock()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Everyone's turn, where the fit's is over."""
        if trainer.global_step % self.steps:
            return
        own = self.clock().since(self.began, self.steps)
        self.times.add({self.name: own} | one_round(self.others, self.rounds, self.clock))
        self.rounds += 1
        self.began = self.clock()


class SaveAtLast(Callback):
    """Times the writing of a checkpoint after the last step. To come before the checkpoint's own callback.

    Attributes:
        found: the "seconds" that it took, and "every_seconds" from one to the next, at the least; None where the run
            writes none.
    """

    def __init__(self, every_minutes: float | None) -> None:
        self.every_minutes = every_minutes
        self.found: dict[str, float] | None = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save; nothing is left to do for the callback then."""
        for callback in trainer.callbacks:
            if isinstance(callback, Checkpoint):
                seconds = Clock(pl_module.device.type).time(Turn(partial(callback.save_end, trainer))).wall
                every = max(60, seconds / callback.SHARE) if self.every_minutes is None else 60 * self.every_minutes
                self.found = {"seconds": seconds, "every_seconds": every}


def fit_step(work: Work, run_dir: Path, steps: int) -> None:
    """Train for so many steps."""
    fit_of(work, run_dir, steps).run()


def network_alone(work: Work) -> NetworkStep:
    """The floor: the network and its optimizer, as the fit has them."""
    cfg = composed(work.overrides)
    network = module_of(cfg).model.network.to(work.device)
    return NetworkStep(work, network, make(cfg, "optimizer", params=network.parameters()))


def module_of(cfg: DictConfig) -> DiffusionModule:
    """The config's training module, of the same weights at every call."""
    torch.manual_seed(cfg.seed)
    module = make_module(cfg, data_of(cfg).spec)
    for network in (module.model.network, module.ema.network):
        fill_zeros(network)
    return module


def data_of(cfg: DictConfig) -> DataModule:
    """The config's images, opened."""
    data = make_data(cfg)
    data.prepare_data()
    return data


def denoiser_of(work: Work, cfg: DictConfig) -> Denoiser:
    """The config's model, ready to sample."""
    torch.manual_seed(cfg.seed)
    denoiser = make_model(cfg, data_of(cfg).spec)
    fill_zeros(denoiser.network)
    return denoiser.to(work.device).eval()


class Sampling:
    """A batch of samples, as `sample.py` makes it.

    Args:
        work: the work.
    """

    def __init__(self, work: Work) -> None:
        cfg = composed([*work.overrides, f"sampler.steps={work.sampling_steps}"])
        self.work = work
        self.denoiser = denoiser_of(work, cfg)
        self.network = self.denoiser.network
        spec = data_of(cfg).spec
        self.generator = make_generator(cfg, spec, make_codec(cfg, spec))

    def __call__(self) -> None:
        """Make a batch."""
        size = self.work.batch_size
        with self.work.autocast():
            list(self.generator(self.denoiser, range(size), 0, size, self.work.device))


class SamplingAlone:
    """The floor of sampling: as many evaluations of the network, and nothing else.

    Args:
        work: the work.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.network = denoiser_of(work, composed(work.overrides)).network
        self.x = torch.randn(work.batch_size, *work.shape, device=work.device)
        self.t = torch.full((work.batch_size,), 500.0, device=work.device)

    @torch.inference_mode()
    def __call__(self) -> None:
        """Evaluate the network."""
        with self.work.autocast():
            for _ in range(self.work.sampling_steps):
                self.network(self.x, self.t)


class Blank(Network):
    """A network that does next to nothing, to see what surrounds one.

    Args:
        in_channels: of the image.
        out_channels: of the output.
    """

    condition = None

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        """A linear map of every pixel."""
        return self.layer(x)


def overheads(work: Work, run_dir: Path, warm_up: int, rounds: int, steps: int, repeats: int) -> Times:
    """Time the parts of a step by themselves, beside the network alone and a fit of a network that does nothing.

    Args:
        work: the work.
        run_dir: the run's folder.
        warm_up: rounds that do not count.
        rounds: rounds that do.
        steps: of the network alone in a round.
        repeats: how many steps that fit makes in a round, and how often each part is repeated.

    Returns:
        the times of a step: "network alone", each part by its name, and "loop", all else that takes time in a fit.
    """
    floor = network_alone(work)
    cfg = composed(work.overrides)
    ema = make(cfg, "ema", network=floor.network)
    blank = {"_target_": f"{Blank.__module__}.{Blank.__name__}"}
    fit = fit_of(work, run_dir, (warm_up + rounds) * repeats, blank)
    batches = _batches(fit.data, work.device)
    batch = batches()

    def noise_and_loss() -> None:
        with work.autocast():
            loss = fit.module.training_step(batch, 0)
        loss.backward()

    clip = cfg.trainer.gradient_clip_val or float("inf")
    weights = list(floor.network.parameters())
    turns = {
        "network alone": Turn(floor, steps),
        "data": Turn(batches, repeats),
        "noise, times, loss": Turn(noise_and_loss, repeats),
        "gradient clipping": Turn(lambda: nn.utils.clip_grad_norm_(weights, clip), repeats),
        "optimizer": Turn(floor.optimizer.step, repeats),
        "average of the weights": Turn(lambda: ema.update(floor.network, 100_000, work.batch_size), repeats),
    }
    interleaved = Interleaved("loop", repeats, turns, work.device)
    fit.run(interleaved)
    times = interleaved.times.without(warm_up)
    for own in (times.wall, times.cpu):
        around = zip(own["loop"], own["data"], own["noise, times, loss"], strict=True)
        own["loop"] = [loop - data - loss for loop, data, loss in around]
    return times


def _batches(data: DataModule, device: str) -> Callable[[], Batch]:
    """Gives batch after batch, as the training module is given them."""
    batches = iter(data.train_dataloader())

    def following() -> Batch:
        batch = data.transfer_batch_to_device(next(batches), torch.device(device), 0)
        return data.on_after_batch_transfer(batch, 0)

    return following


class Trained(NamedTuple):
    """How a fit went.

    Attributes:
        times: how long a step takes, its own under "langevin" and the others'.
        parameters: of its network.
        step: how often the network is called in a step, and for how many images.
        checkpoint: see `SaveAtLast.found`.
    """

    times: Times
    parameters: int
    step: Mapping[str, float]
    checkpoint: Mapping[str, float] | None


def train(work: Work, run_dir: Path, others: Mapping[str, Turn], warm_up: int, rounds: int, steps: int) -> Trained:
    """Fit, the others taking turns.

    Args:
        work: the work.
        run_dir: the run's folder.
        others: what is timed beside it.
        warm_up: rounds that do not count.
        rounds: rounds that do.
        steps: optimizer steps in a round.
    """
    fit = fit_of(work, run_dir, (warm_up + rounds) * steps)
    watch = Watch(fit.module.model.network)
    interleaved = Interleaved("langevin", steps, others, work.device)
    save = SaveAtLast(composed(work.overrides).callbacks.checkpoint.every_minutes)
    fit.trainer.callbacks.insert(0, save)
    fit.run(interleaved)
    parameters = sum(weight.numel() for weight in fit.module.model.network.parameters())
    return Trained(interleaved.times.without(warm_up), parameters, watch.per(fit.trainer.global_step), save.found)
