"""Weights & Biases; its failures never stop the run."""

import importlib.util
import os
import secrets
import warnings
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from langevin.cli import SWEEP
from langevin.errors import missing_package
from langevin.files import write_atomically
from langevin.processes import is_first_process
from langevin.training.loggers.guarded import Guarded


class Wandb(Guarded, WandbLogger):
    """Logs to Weights & Biases; where that fails, the run continues without it, with a warning.

    Without an account, or when the service cannot be reached at the start, the run is recorded offline in
    `<run>/wandb` and can be sent later with `wandb sync`. A failure in mid-run is reported once.

    The run's id, made when it is first recorded, is kept in `<run>/wandb_id`: a resumed run continues the same
    W&B run, and a run of the same name elsewhere, or started from scratch, gets its own.

    Args:
        run_dir: the run's folder.
        run_name: the run's name.
        project: the project in W&B.
        entity: the team or account; null for the account's own.
        mode: online, offline or disabled.
        group: the group that the run is shown in; null for what the sweep goes over (`train.py -m`), or none.
        tags: tags of the run.

    Raises:
        UserError: when the package wandb is missing.
    """

    service = "W&B"
    FALLBACKS: ClassVar[list[tuple[Literal["offline", "disabled"], str]]] = [
        ("offline", "recording offline instead"),
        ("disabled", "continuing without it"),
    ]
    START_SECONDS = 30
    GROUP_LENGTH = 128  # what W&B takes
    END_SECONDS = 60  # for what is not yet sent at the end; `wandb sync` sends the rest

    def __init__(
        self,
        run_dir: Path,
        run_name: str,
        project: str = "langevin",
        entity: str | None = None,
        mode: Literal["online", "offline", "disabled"] = "online",
        group: str | None = None,
        tags: list[str] | None = None,
    ) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise missing_package("loggers=wandb", "wandb", "wandb")
        import wandb

        if mode == "online" and not _has_account():
            warnings.warn(
                "W&B has no account on this machine (`wandb login` or WANDB_API_KEY): recording offline in "
                f"{run_dir / 'wandb'}; `wandb sync` sends it later",
                stacklevel=2,
            )
            mode = "offline"
        limits: dict[str, Any] = {"init_timeout": self.START_SECONDS, "finish_timeout": self.END_SECONDS}
        known = wandb.Settings.model_fields  # older versions cannot limit the end
        limits = {name: seconds for name, seconds in limits.items() if name in known}
        self._settings = wandb.Settings(mode=mode, **limits)  # read when the run is started, below
        super().__init__(
            name=run_name,
            save_dir=run_dir,
            project=project,
            entity=entity,
            group=group or os.environ.get(SWEEP, "")[: self.GROUP_LENGTH] or None,
            tags=list(tags or []),
            resume="allow",
            settings=self._settings,
        )
        self._wandb_init.pop("anonymous", None)  # Lightning gives it, and W&B prints a warning of that
        self._id_file = run_dir / "wandb_id"

    @property
    def experiment(self) -> Any:
        """The W&B run; started here: online or, where that fails, offline, and where that fails too, not at all."""
        if self._experiment is None and is_first_process():
            self._settings.run_id = self._kept_id()
            for mode, instead in self.FALLBACKS:
                try:
                    return super().experiment
                except Exception as error:  # whatever the service or the network came up with
                    import wandb

                    warnings.warn(f"W&B could not be started ({error}): {instead}", stacklevel=2)
                    wandb.teardown()  # the run that failed would keep its name taken
                    self._settings.mode = mode
        return super().experiment

    def _kept_id(self) -> str:
        if not self._id_file.is_file():
            write_atomically(self._id_file, lambda file: file.write(secrets.token_hex(4).encode()))
        return self._id_file.read_text()

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log values; never raises."""
        self._guarded(super().log_metrics, metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log the config; never raises."""
        self._guarded(super().log_hyperparams, params, *args, **kwargs)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log images; never raises."""
        self._guarded(super().log_image, key, images, step, **kwargs)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run in W&B, within bounds of time."""
        if self._experiment is not None:
            self._guarded(self._experiment.finish, exit_code=0 if status == "success" else 1)


def _has_account() -> bool:
    import wandb

    if os.environ.get("WANDB_API_KEY"):
        return True
    try:  # what `wandb.api` did, which newer versions print a warning of
        from wandb.sdk import wandb_setup
        from wandb.sdk.lib import wbauth

        settings = wandb_setup.singleton().settings
        return bool(wbauth.read_netrc_auth(host=settings.base_url) or settings.api_key)
    except (ImportError, AttributeError):  # an older version
        return bool(wandb.api.api_key)
