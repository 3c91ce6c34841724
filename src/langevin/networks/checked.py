"""What a class can say about its own parameters without being built."""

from typing import Any

from langevin.errors import UserError


class Checked:
    """A class whose parameters can be checked before an instance exists.

    The config validator calls `check` and reports every mistake with its path; a constructor calls `require`, so that a
    direct caller hears the same words.
    """

    @classmethod
    def check(cls, *args: Any, **fields: Any) -> list[tuple[str, str]]:
        """List every mistake in `fields` as (field name, message); empty when all is well.

        A class overrides this with its own keyword-only parameters. The message starts with the field's value and ends
        with what is allowed; the field's name is left to the caller, who knows the whole config path.
        """
        return []

    @classmethod
    def require(cls, **fields: Any) -> None:
        """Raise the first mistake that `check` finds.

        Raises:
            UserError: naming class, field, value and what is allowed.
        """
        for field, message in cls.check(**fields):
            raise UserError(f"{cls.__name__}.{field}: {message}")
