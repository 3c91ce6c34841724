"""The one exception for mistakes that a user can correct."""

from collections.abc import Sequence


class UserError(ValueError):
    """A mistake in a command, a config or a file that the user can correct.

    The commands print its message alone, without a traceback, and exit with status 1. The message names the option
    (or file), its value, and what is allowed.
    """


class OptionError(UserError):
    """What is wrong with the value of an option, as data: its place in the config is known to the caller.

    Args:
        field: the option: a parameter of the constructor that raises this, or a path in the config ("sampler.steps").
        text: what is wrong with its value, and what is allowed, such as "is 0; allowed: at least 1".
        also: the same of other options, where there are several.

    Attributes:
        found: all of them, each (field, text).
    """

    def __init__(self, field: str, text: str, also: Sequence[tuple[str, str]] = ()) -> None:
        self.found = ((field, text), *also)
        super().__init__("; ".join(f"{name} {what}" for name, what in self.found))


def missing_package(what: str, package: str, extra: str) -> UserError:
    """The error for an optional package that is not installed.

    Args:
        what: what needs it, such as "loggers=wandb".
        package: its name on the package index.
        extra: the extra of our distribution that installs it.
    """
    return UserError(f"{what} needs the package {package}: pip install 'langevin-diffusion[{extra}]'")


def refuse(found: Sequence[tuple[str, str]]) -> None:
    """Raise what is wrong with some options, if anything is.

    Raises:
        OptionError: of all of them.
    """
    if found:
        (field, text), *also = found
        raise OptionError(field, text, also)
