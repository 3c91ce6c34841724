"""Noise that is known beforehand."""

from langevin.diffusion.draws import Draws


class Given(Draws):
    """Gives the noise that a tensor holds, the same at every call, or that a function returns."""

    def __init__(self, noise) -> None:
        self.noise = noise

    def normal(self, shape=None):
        return self.noise() if callable(self.noise) else self.noise

    def uniform(self):
        raise AssertionError("no uniform numbers are known")
