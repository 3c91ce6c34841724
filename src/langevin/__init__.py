"""Langevin: controlled experiments on diffusion models.

A trained run is an object, see `load` and `train`:

    run = langevin.load("outputs/quickstart")
    samples = run.sample(16, sampler="ddim", steps=20, guidance=2.0)
    samples.samples, samples.labels  # uint8 (16, H, W, C), int64 (16,)
    run.evaluate(["class_accuracy"], num_samples=500).values

The parts that runs are made of are classes that can be used without a config:

    from langevin.diffusion.denoiser import Denoiser
    from langevin.diffusion.draws import SampleDraws
    from langevin.diffusion.parameterization import V
    from langevin.diffusion.process import GaussianProcess
    from langevin.diffusion.schedules.cosine import Cosine
    from langevin.networks.unet import UNet
    from langevin.samplers.ddim import DDIM
    from langevin.samplers.timestep_spacing import Trailing

    size = {"in_channels": 3, "out_channels": 3, "image_size": 32}
    network = UNet(**size, channels=32, channel_multipliers=[1, 2], blocks_per_level=1, attention_resolutions=[16])
    denoiser = Denoiser(network, GaussianProcess(Cosine(), V()))
    draws = SampleDraws(0, range(4), (3, 32, 32), "cpu")  # of seed 0, samples 0 to 3
    x = DDIM(Trailing(), steps=20)(denoiser, draws)  # float32 (4, 3, 32, 32), in about [-1, 1]

Importing this package imports no other: torch is imported by what needs it.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Cascade", "Run", "Samples", "UserError", "__version__", "cascade", "load", "train"]

if TYPE_CHECKING:
    from langevin.api import Run, Samples, load, train
    from langevin.cascades import Cascade, cascade
    from langevin.errors import UserError
else:

    def __getattr__(name: str) -> Any:
        """Import a name of the API when it is first used."""
        from importlib import import_module

        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        elsewhere = {"UserError": "errors", "Cascade": "cascades", "cascade": "cascades"}
        return getattr(import_module(f"langevin.{elsewhere.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
