"""Common to all commands: composing and checking a config, and reporting mistakes clearly."""

import copy
import ctypes
import errno
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from importlib.util import find_spec
from typing import NoReturn, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from langevin.config.describe import CONF, part_names
from langevin.config.migration import current
from langevin.config.overrides import literal, parsed, require_consistent, settle
from langevin.config.typed import refuse_slips
from langevin.config.validate import INSTEAD, PLURAL, groups, groups_of, unknown
from langevin.errors import UserError, missing_package
from langevin.help import is_wanted, show
from langevin.interrupt import STATUS, Interrupted, listen, requeue
from langevin.visible import visible_lines

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ACCESS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOENT,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)
LAUNCHER = "hydra/launcher"
SWEEP = "LANGEVIN_SWEEP"
"""The environment variable that gives the runs of a sweep the options that it varies."""


def command(
    config_name: str, run: Callable[[DictConfig], object], options_of_command: Mapping[str, str]
) -> Callable[[], None]:
    """Make the `main` of a command.

    Args:
        config_name: the command's file in conf/.
        run: what it does with the composed config; Hydra's sweepers are given what it returns.
        options_of_command: its own options and their types, such as {"seed": "int"}.
    """

    def task(cfg: DictConfig) -> object:
        listen()  # a job of hydra/launcher=slurm begins here, with handlers of submitit
        keep_memory()
        hydra_cfg = HydraConfig.get()
        try:
            settle_experiment(config_name, cfg)
            with isolated_job(hydra_cfg.overrides.task) if hydra_cfg.mode is RunMode.MULTIRUN else nullcontext():
                return run(cfg)
        except UserError as error:
            fail(str(error))
        except Interrupted as stop:
            again = "the job is back in the queue" if requeue() else "rerun the same command to resume"
            print(f"interrupted {stop}; {again}", file=sys.stderr, flush=True)
            sys.exit(STATUS)
        except OSError as error:
            if error.errno in DISK_FULL:
                fail(f"the disk is full: {error}")
            if error.errno in NO_ACCESS and error.filename is not None:
                fail(f"{error.filename}: {error.strerror}")
            raise

    def main() -> None:
        if not any(argument.startswith(f"{LAUNCHER}=") for argument in sys.argv[1:]):  # the launcher is not interrupted
            listen()
        calm_threads()
        reach_own_parts(sys.argv[1:])
        warnings.formatwarning = plain_warning
        # Hydra's parser accepts its flags before or after the overrides, but not between them.
        arguments = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
        sweeps = bool({"-m", "--multirun", "hydra.mode=MULTIRUN"}.intersection(arguments))
        try:
            if is_wanted(arguments):
                show(config_name, arguments)
                return
            sys.argv[1:] = for_hydra(config_name, arguments, options_of_command, sweeps)
        except UserError as error:
            fail(str(error))
        if sweeps:
            os.environ[SWEEP] = swept(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(task)()

    return main


@contextmanager
def composed(config_name: str, overrides: Iterable[str], options_of_command: Mapping[str, str]) -> Iterator[DictConfig]:
    """The config of a command, composed in this process, with Hydra's globals as the command finds them.

    Afterwards they are as they were, so that a program may use Hydra for itself too.

    Args:
        config_name: the command's file in conf/.
        overrides: as a shell gives them.
        options_of_command: its own options and their types.

    Raises:
        UserError: when they cannot be composed.
    """
    own, job = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), job_name=config_name, version_base="1.3"):
            try:
                whole = hydra.compose(
                    config_name, for_hydra(config_name, overrides, options_of_command), return_hydra_config=True
                )
            except MissingConfigException as error:
                group, _, name = str(error.missing_cfg_file).rpartition("/")
                raise UserError(f"{group}={name}: {unknown(name, list(error.options or ()))}") from error
            except (HydraException, OmegaConfBaseException) as error:
                raise UserError(" ".join(str(error).split())) from error
            HydraConfig.instance().set_config(whole)
            cfg = copy.deepcopy(whole)
            with read_write(cfg), open_dict(cfg):
                del cfg["hydra"]
            settle_experiment(config_name, cfg)
            yield cfg
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = own, job


def for_hydra(
    config_name: str, arguments: Iterable[str], options_of_command: Mapping[str, str], sweeps: bool = False
) -> list[str]:
    """A command's overrides, as a shell gives them, in the form in which Hydra takes them for what they mean.

    Args:
        config_name: the command's file in conf/.
        arguments: the overrides, and Hydra's flags.
        options_of_command: its own options and their types.
        sweeps: whether several values, with commas between them, are a sweep.

    Raises:
        UserError: when one of them cannot be meant.
    """
    own = groups_of(config_name)
    arguments = [literal(argument, options_of_command, own, sweeps) for argument in arguments]
    forced = [force_add_override(argument, own) for argument in arguments]
    refuse_slips(arguments, own, options_of_command, sweeps)
    require_consistent(arguments, own)
    return forced


def settle_experiment(config_name: str, cfg: DictConfig) -> None:
    """Apply `settle` to the config of `train`, composed of the overrides that Hydra has recorded."""
    if config_name == "train":
        given = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        settle(cfg, cast("list[str]", given), groups_of(config_name))


@contextmanager
def isolated_job(overrides: Iterable[str], module: str | None = None) -> Iterator[None]:
    """Do one of several jobs as if it were the only one of this process.

    Lightning starts a job's other processes by repeating the command line, which must then mean this one job. The rank
    variables that it leaves in the environment would be used by the next job.

    Args:
        overrides: of this job.
        module: the command that they are overrides of, such as "langevin.commands.train"; None for the one that runs.
    """
    process, arguments, environment = sys.modules["__main__"], sys.argv, dict(os.environ)
    spec = process.__spec__
    sys.argv = [arguments[0], *overrides]
    if module is not None:
        process.__spec__ = find_spec(module)
    try:
        yield
    finally:
        process.__spec__, sys.argv = spec, arguments
        os.environ.clear()
        os.environ.update(environment)
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()


def reach_own_parts(arguments: Iterable[str]) -> None:
    """Let a user's own parts be imported from the current folder, where the command line names such.

    The folder comes last: no file in it hides an installed package.
    """
    if any(argument.startswith(("--config-dir", "-cd", "trust=")) for argument in arguments):
        sys.path.append(os.getcwd())


def calm_threads() -> None:
    """Let idle CPU threads sleep instead of spinning; to be called before torch is imported.

    By default GNU OpenMP spins for milliseconds at the end of every parallel loop, which costs a small network most of
    its speed as soon as anything else runs on the machine. (64 samples of a digits network on 2 cores, start included:
    5.7 s alone. Beside four busy processes 21 s, as long as one thread takes there, whose fair share it is; spinning 20
    times as long takes up to twice that. Spinning a third as long, or not at all, costs up to half the speed alone.)
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}.intersection(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "1000"


def keep_memory() -> None:
    """Let the C library, where it is glibc, keep the memory that tensors free.

    By default it returns the feature maps of every step to the system, and gets them back as zeroed pages: for the
    CIFAR-10 U-Net at a batch of 16, 600 MB and up to a tenth of the step.
    """
    with suppress(AttributeError, OSError):  # no glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: what is free at the top of the heap stays
        mallopt(-4, 0)  # M_MMAP_MAX: nothing lies outside of the heap


def plain_warning(message: Warning | str, category: type[Warning], *where: object, **line: object) -> str:
    """A warning for a user: where in the code it arose, which Python puts before it, says nothing to them."""
    return f"warning: {message}\n"


def command_line(command: str) -> str:
    """The command line of a command that Hydra configures, in a form that can be rerun.

    Args:
        command: "train" or "evaluate".
    """
    return shlex.join(["langevin", command, *(each.lstrip("+") for each in HydraConfig.get().overrides.task)])


def swept(overrides: list[str]) -> str:
    """Those overrides of a sweep, by `for_hydra`, that have several values: "schedule=linear,cosine seed=0,1"."""
    several = [each for each in overrides if (read := parsed(each)) is not None and read.is_sweep_override()]
    # What cannot be parsed is a flag, or a mistake, which Hydra reports.
    return " ".join(each.lstrip("+") for each in several)


def force_add_override(argument: str, own: list[str]) -> str:
    """An override that Hydra takes even if there is no such key: `a.b=1` becomes `++a.b=1`.

    Hydra stops at the first unknown key and advises `+a.b=1`, which hides the typo. With `++` it is reported with all
    other mistakes, by `langevin.config.validate`. Choices of a group of the command stay as they are: Hydra lists the
    options. Only `GROUP=null`, at which Hydra stops with a traceback, is replaced by its equivalent.

    Args:
        argument: the override.
        own: the groups that the command has.

    Raises:
        UserError: when it chooses from a group that the command does not have, which Hydra would advise to add; sets
            an option by a name of before; leaves out what a run cannot do without; or chooses a launcher of ours whose
            package is missing.
    """
    key, equals, value = argument.partition("=")
    name = key.lstrip("+~")
    if current(name) != name:
        raise UserError(f"{argument}: {name} is called {current(name)} now")
    if key == LAUNCHER and (CONF / LAUNCHER / f"{value}.yaml").is_file() and find_spec("submitit") is None:
        raise missing_package(argument, "hydra-submitit-launcher", "slurm")
    if not equals or key.startswith(("-", "+", "~", "hydra")) or "/" in key:
        return argument
    group = key.partition("@")[0]
    if group not in own and group in groups():
        raise UserError(f"{group}: {unknown(group, own)}")
    if group not in own:
        return "++" + argument
    if argument in INSTEAD:
        raise UserError(f"{argument}: leave it out; instead, there is {INSTEAD[argument]}")
    if value == "null":
        return f"{key}=none" if "none" in part_names(key) else f"{key}=[]" if key in PLURAL else f"~{key}"
    return argument


def fail(message: str) -> NoReturn:
    """Print an error and exit with status 1."""
    print(visible_lines(f"error: {message}"), file=sys.stderr, flush=True)
    sys.exit(1)
