"""What `langevin sample` makes, built from its config: a folder of samples of a trained model."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from langevin.assembly.check import check_model
from langevin.assembly.components import SAMPLING, make_sampler
from langevin.assembly.given_images import open_given_images
from langevin.assembly.low_res import UNLINKED, Link
from langevin.assembly.prompting import request_prompts
from langevin.assembly.restoring import open_given, prepare_restoration
from langevin.assembly.sample_files import (
    COLUMNS,
    NOISY_FILE,
    difference,
    first,
    inconsistency,
    is_whole,
    one_by_one,
    refuse_others,
    show_originals,
    write,
    write_one_by_one,
    write_trajectory,
)
from langevin.assembly.saved import Model, load_model, override
from langevin.assembly.sized import request_size
from langevin.assembly.text_files import move_encoder
from langevin.batches import Batches
from langevin.checkpoint import folder_of
from langevin.content import class_names, labelled
from langevin.data.read_images import read_images
from langevin.digest import digest_of
from langevin.errors import OptionError, UserError
from langevin.images import write_npz
from langevin.processes import is_first_process, launch
from langevin.samplers.beginning import Inversion, SDEdit
from langevin.samplers.generate import Originals, SamplePipeline
from langevin.samplers.pipeline import NOISY, SAMPLES
from langevin.samplers.prompts import captions_of
from langevin.samplers.store import SampleStore
from langevin.samplers.trajectory import Trajectory
from langevin.samples import Strips
from langevin.visible import visible


class SamplingPlan(NamedTuple):
    """What a sampling config asks of a model.

    Attributes:
        number: how many samples it makes.
        generator: makes them.
        originals: what they are made of; None: of noise alone.
        record: how they are made, plain values: "samples" and "model", and what is done with the originals.
    """

    number: int
    generator: SamplePipeline
    originals: Originals | None
    record: dict[str, Any]

    @property
    def arrays(self) -> dict[str, str]:
        """What is written beside samples.npz, by its file's name: what a store calls it."""
        inverted = self.originals is not None and isinstance(self.originals.beginning, Inversion)
        found = {"noise.npz": "noise"} if inverted else {}
        return found | ({} if self.generator.truncated is None else {NOISY_FILE: NOISY})

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The class of each sample (N,); None where they have none."""
        labels = self.generator.requests.cond(range(self.number)).get("label")
        return None if labels is None else labels.numpy()

    @property
    def prompts(self) -> list[str] | None:
        """The prompt of each sample; None where they have none."""
        return captions_of(self.generator.requests, self.generator.requests.cond(range(self.number)))

    def classes(self, run_dir: Path) -> list[str] | None:
        """What each sample is labelled with: its prompt, else its class by the name that the run's folder has.

        None where they have neither.
        """
        if (prompts := self.prompts) is not None:
            return prompts
        return labelled(None if self.labels is None else self.labels.tolist(), class_names(run_dir))


def plan(cfg: DictConfig, path: Path, model: Model, link: Link = UNLINKED) -> SamplingPlan:
    """Find out what a sampling config asks of a model, loaded from the checkpoint `path`.

    Args:
        cfg: of the command.
        path: the checkpoint.
        model: what it holds.
        link: of a cascade's stage.

    Raises:
        UserError: when the model cannot do that.
    """
    chosen = override(model.cfg, cfg, SAMPLING)
    check_model(chosen, SAMPLING, model.spec)
    originals, restored = open_originals(cfg, chosen, model), None
    sources: list[Any] = [] if originals is None else [originals]
    if cfg.get("restoration") is not None:
        restore = prepare_restoration(cfg, chosen, model)
        restored = restore(*open_given(cfg, model.spec))
        sources.append(restored.given)
    given = open_given_images(cfg, model, link.small)
    sources += given
    number = min([cfg.num_samples, *(len(each.samples) for each in sources)])
    generator = model.generator(chosen, cfg.labels, restored)
    if generator.requests.in_turn and sources:
        own = [each.labels for each in sources if each.labels is not None]
        if own:
            generator = model.generator(chosen, own[0].tolist(), restored)
        elif originals is None:
            raise UserError(
                "labels: must be given: samples are of classes, and the images have no labels; allowed: the class of "
                "each, or one of all. Where they are not known, and the model has condition dropout: labels=0 "
                "guidance=classifier_free guidance.scale=0, which ignores them"
            )
    move_encoder(model.denoiser.network, cfg.text.path)
    request_prompts(cfg, chosen, model, generator)
    for each in given:
        each.requested_of(generator)
    request_size(cfg, chosen, model, generator)
    generator.truncated = link.truncated
    about = {"checkpoint": str(path), "step": model.step, "weights": digest_of(model.denoiser.network)}
    record: dict[str, Any] = {"samples": generator.record(model.denoiser, cfg.seed), "model": about}
    if originals is not None:
        record |= originals.beginning.record(hashlib.sha256(originals.samples.tobytes()).hexdigest())
    return SamplingPlan(number, generator, originals, record)


def fill(out: Path, path: Path, cfg: DictConfig, loaded: Model | None = None, link: Link = UNLINKED) -> None:
    """Sample from a checkpoint into a folder that no other process fills.

    Args:
        out: the folder.
        path: the checkpoint.
        cfg: of the command.
        loaded: what the checkpoint holds, where that is loaded already.
        link: of a cascade's stage.

    Raises:
        UserError: when the folder holds the samples of other settings, or the config asks for what the model cannot do.
    """
    model = load_model(path, cfg.trust, cfg.ema_width) if loaded is None else loaded
    planned = plan(cfg, path, model, link)
    number, generator, originals, record = planned
    modality, classes = generator.modality, planned.classes(folder_of(path))
    if cfg.png and modality.suffix is None:
        raise UserError(f"png is true; allowed: false, since {modality.noun} are no files one by one")

    store = SampleStore(out, "sample", {"inverted": None, **record, "batch_size": cfg.batch_size})
    if (out / "samples.npz").exists() and not cfg.overwrite:
        refuse_others(out, {"num_samples": number, **record})
        files = one_by_one(out, range(number), modality, classes) if cfg.png else []
        if is_whole(out, [*files, *map(out.joinpath, planned.arrays)], cfg.trajectory is not None):
            if is_first_process():
                store.remove()
                made = f"{number} {modality.noun} of step {model.step}, of the same settings"
                print(visible(f"{out / 'samples.npz'} is done: {made}"))
            return
    processes = launch(cfg.accelerator, cfg.devices)
    denoiser = model.denoiser.to(processes.device)
    if processes.global_rank == 0:
        store.remove_others()
        if cfg.trajectory:  # is recorded only while images are made
            store.remove()
    processes.barrier()
    batches = Batches(number, cfg.batch_size, processes.global_rank, processes.world_size, "sample")
    records = cfg.trajectory and processes.global_rank == 0
    seen = Trajectory(denoiser.schedule, modality.traced, generator.show) if records else None
    for batch in generator.stored(denoiser, batches, cfg.seed, processes.device, store, seen, originals):
        if seen is not None and not seen.is_complete:
            strips = Strips.of(seen, cfg.trajectory, batch.samples, modality, classes)
            write_trajectory(out, seen, strips.figure())
    processes.barrier()
    if processes.global_rank == 0:
        about = planned.labels, record, modality, classes, planned.prompts
        write(out, lambda: store.arrays(SAMPLES, batches.all), number, *about)
        finished = first(store.arrays(SAMPLES, batches.all), modality.previewed // 3)
        if len(kinds := generator.beside(finished, cfg.seed)) > 1:
            modality.beside(kinds, COLUMNS, classes and classes[: len(finished)]).write(out / "grid.png")
        if generator.restored is not None:
            off = inconsistency(generator.restored, store, batches.all, cfg.seed, modality)
            print(visible(f"A x is {off} off what was measured, root mean square"))
        if originals is not None:
            inverted = cfg.invert.images is not None
            show_originals(originals, store, batches.all, generator, classes, inverted).write(out / "grid.png")
        for file, name in planned.arrays.items():
            write_npz(out / file, store.arrays(name, batches.all), number)
        if cfg.png:
            write_one_by_one(out, store, batches.all, modality, classes)
        message = f"{out / 'samples.npz'}: {number} {modality.noun} of step {model.step}; look at {out / 'grid.png'}"
        print(visible(message))
        if originals is not None:
            unit = "" if modality.levels is None else f" of {modality.levels - 1} levels"
            off = f"{difference(originals, store, batches.all):.2f}{unit} off on average"
            if inverted:
                off = f"{out / 'noise.npz'}: the noise they come from; {off}"
            print(visible(off))
        store.remove()
    processes.barrier()


def open_originals(cfg: DictConfig, chosen: DictConfig, model: Model) -> Originals | None:
    """The images to be edited or inverted; None where there are none.

    Raises:
        UserError: when they are missing, of another shape than the model's, or the sampler cannot begin at them.
    """
    option = "invert.images" if cfg.edit.images is None else "edit.images"
    path = cfg.invert.images if cfg.edit.images is None else cfg.edit.images
    if path is None:
        return None
    beginning = Inversion() if cfg.edit.images is None else SDEdit(cfg.edit.strength)
    try:
        beginning.check(make_sampler(chosen, model.diffused), model.denoiser.schedule)
    except OptionError:
        raise
    except UserError as error:
        raise UserError(f"{option}={path}: {error}") from error
    images, labels = read_images(path, option)
    channels, *size = model.spec.shape
    if images.shape[1:] != (*size, channels):
        kind = "images of (height, width, channels)" if len(size) == 2 else "samples of shape"
        raise UserError(f"{option}={path}: {kind} {images.shape[1:]}; the model's are {(*size, channels)}")
    return Originals(images, labels, beginning)
