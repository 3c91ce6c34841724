"""Packs what a GPU machine without network needs besides the working tree, weighs it, and unpacks it there.

Here::

    python -m experiments.gpu.luggage --out luggage --cifar10 PATH_OF_TRAINING_ZIP

There, with the standard library alone::

    python -m experiments.gpu.luggage --unpack luggage --into /tmp/site
    export PYTHONPATH=src:/tmp/site

The folder holds ``wheels/``, and what was asked for of ``cifar10-train.zip``, ``classifier.ckpt`` and ``peers/`` (the
value of LANGEVIN_PEERS there). Packing again replaces the parts that are asked for, and keeps the others.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

MIB = 2**20
LIMIT = 62.0  # MiB
PACKAGES = ("hydra-core", "omegaconf", "antlr4-python3-runtime", "torch-fidelity", "diffusers", "annotated-types")
SDISTS = ("antlr4-python3-runtime",)  # published without a wheel
COMPILED = (".so", ".pyd", ".dylib", ".dll")
# What experiments/speed/peers.py needs of a checkout: of EDM, training/networks.py and what it imports.
PEERS = {"edm": ("training/__init__.py", "training/networks.py", "torch_utils/*.py", "dnnlib/*.py")}


class LuggageError(Exception):
    """Something that is reported to the user, without a traceback."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Pack and weigh, or unpack."""
    options = parsed(arguments)
    try:
        if options.unpack is not None:
            unpack(options.unpack, options.into)
        else:
            pack(options.out, options.python, options.cifar10, options.classifier, options.peers)
            weigh(options.out, options.limit)
    except LuggageError as error:
        sys.exit(f"luggage: {error}")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gpu.luggage", description=(__doc__ or "").splitlines()[0]
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="folder to pack into; git must ignore it")
    what.add_argument("--unpack", type=Path, help="packed folder whose wheels to unpack")
    parser.add_argument("--into", type=Path, help="with --unpack: folder for the packages, for PYTHONPATH")
    parser.add_argument("--cifar10", type=Path, help="zip file of CIFAR-10's training images")
    parser.add_argument("--classifier", type=Path, help="a classifier's run folder or .ckpt file")
    parser.add_argument("--peers", type=Path, help="folder with a checkout of NVlabs/edm, named edm")
    parser.add_argument("--python", default="3.12", help="version of the other machine's Python (default: 3.12)")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"most MiB that may travel (default: {LIMIT:g})")
    options = parser.parse_args(arguments)
    if (options.unpack is None) != (options.into is None):
        parser.error("--unpack and --into go together")
    return options


def pack(out: Path, python: str, cifar10: Path | None, classifier: Path | None, peers: Path | None) -> None:
    """Put the wheels, and what else is given, into the folder.

    Raises:
        LuggageError: when something is missing, or pip fails.
    """
    refuse_unless_ignored(out)
    # All mistakes show before the first download.
    if cifar10 is not None and not zipfile.is_zipfile(there(cifar10, "--cifar10")):
        raise LuggageError(f"--cifar10={cifar10} is no zip file")
    checkpoint = None if classifier is None else checkpoint_of(classifier)
    code = [] if peers is None else code_of(peers)
    requirements = [f"{name}=={version_of(name)}" for name in PACKAGES]

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheels-", dir=out) as folder:
        wheels = Path(folder) / "wheels"
        wheels.mkdir()
        download(requirements, wheels, python)
        check(wheels, len(requirements))
        shutil.rmtree(out / "wheels", ignore_errors=True)
        wheels.rename(out / "wheels")
    if cifar10 is not None:
        put(cifar10, out / "cifar10-train.zip")
    if checkpoint is not None:
        put(checkpoint, out / "classifier.ckpt")
    if peers is not None:
        shutil.rmtree(out / "peers", ignore_errors=True)
        for path in code:
            put(path, out / "peers" / path.relative_to(peers))


def refuse_unless_ignored(out: Path) -> None:
    """See that git would not add what is packed.

    Raises:
        LuggageError: when it would, or the folder is not of this working tree.
    """
    # The name inside it is for patterns such as `/luggage/`, which fit folders alone, that need not exist yet.
    if subprocess.run(["git", "check-ignore", "--quiet", str(out / "wheels")], capture_output=True).returncode:
        raise LuggageError(f"--out={out} is no folder of this working tree that git ignores: see .gitignore")


def version_of(package: str) -> str:
    """The version installed here, which the other machine gets too.

    Raises:
        LuggageError: when the package is not installed.
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise LuggageError(f"{package} is not installed here, so its version is unknown") from None


def there(path: Path, option: str) -> Path:
    """The path of a file.

    Raises:
        LuggageError: when it does not exist.
    """
    if not path.is_file():
        raise LuggageError(f"{option}: there is no file {path}")
    return path


def checkpoint_of(place: Path) -> Path:
    """The checkpoint meant by a run's folder or a file."""
    return there(place / "checkpoints" / "last.ckpt" if place.is_dir() else place, "--classifier")


def code_of(peers: Path) -> list[Path]:
    """The files that the benchmark imports from the peers' checkouts.

    Raises:
        LuggageError: when one is missing.
    """
    found = []
    for checkout, patterns in PEERS.items():
        for pattern in patterns:
            paths = sorted((peers / checkout).glob(pattern))
            if not paths:
                raise LuggageError(f"--peers: there is no {peers / checkout / pattern}")
            found += paths
    return found


def put(source: Path, target: Path) -> None:
    """Copy a file, without its permissions: the source may be read-only."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)


def download(requirements: Sequence[str], folder: Path, python: str) -> None:
    """Fetch a wheel of each requirement that is pure Python and fits that version of Python.

    Raises:
        LuggageError: when pip fails.
    """
    sources = [requirement for requirement in requirements if requirement.partition("==")[0] in SDISTS]
    pip("wheel", "--no-deps", f"--wheel-dir={folder}", *sources)
    pure = ("--only-binary=:all:", f"--python-version={python}", "--implementation=py", "--abi=none", "--platform=any")
    pip("download", "--no-deps", *pure, f"--find-links={folder}", f"--dest={folder}", *requirements)


def pip(*arguments: str) -> None:
    """Run this environment's pip.

    Raises:
        LuggageError: when it fails.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING: Location")]
        raise LuggageError(f"pip failed: {' '.join(command)}\n" + "\n".join(lines[-10:]))


def check(folder: Path, count: int) -> None:
    """See that there are as many wheels, which need no more than to be unpacked.

    Raises:
        LuggageError: when there are not.
    """
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != count:
        raise LuggageError(f"{len(wheels)} wheel(s) instead of {count}: {', '.join(path.name for path in wheels)}")
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(COMPILED):
                    raise LuggageError(f"{wheel.name} is not pure Python: {name}")
                if ".data/" in name and ".data/scripts/" not in name:  # scripts are not needed
                    raise LuggageError(f"{wheel.name} must be installed, it is not enough to unpack it: {name}")


def unpack(luggage: Path, into: Path) -> None:
    """Unpack the wheels into a folder for PYTHONPATH.

    Raises:
        LuggageError: when there are none, or one is damaged.
    """
    wheels = sorted((luggage / "wheels").glob("*.whl"))
    if not wheels:
        raise LuggageError(f"there are no wheels in {luggage / 'wheels'}")
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(into)
        except zipfile.BadZipFile as error:
            raise LuggageError(f"{wheel} is damaged: {error}") from None
    print(f"{len(wheels)} package(s) in {into}: export PYTHONPATH=src:{into}")


def weigh(luggage: Path, limit: float) -> None:
    """Print what the luggage and the working tree weigh.

    Raises:
        LuggageError: when it is more than the limit, in MiB.
    """
    weights = {}
    for entry in sorted(luggage.iterdir()):
        # Wheels and peers are shown one by one.
        for part in sorted(entry.iterdir()) if entry.is_dir() else [entry]:
            weights[str(part.relative_to(luggage))] = size_of(part)
    tree = files_of_tree()
    weights[f"working tree, {len(tree)} files"] = sum(path.lstat().st_size for path in tree)
    total = sum(weights.values())
    for name, weight in weights.items():
        print(f"{weight / MIB:8.2f} MiB  {name}")
    print(f"{total / MIB:8.2f} MiB  total, of {limit:g} MiB")
    if total > limit * MIB:
        raise LuggageError(f"{total / MIB:.2f} MiB is too much: {limit:g} MiB may travel")


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
    return path.lstat().st_size


def files_of_tree() -> list[Path]:
    """The files of the working tree that git has or would add."""
    root = Path(git("rev-parse", "--show-toplevel").strip())
    names = git("-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    paths = [root / name for name in sorted(set(names)) if name]
    return [path for path in paths if path.is_symlink() or path.is_file()]  # not those that were deleted


def git(*arguments: str) -> str:
    """What git prints in the current folder.

    Raises:
        LuggageError: when it fails.
    """
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise LuggageError(f"git {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
