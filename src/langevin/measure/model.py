"""Measures a trained model by its samples: none is kept in the end, but a run killed midway reuses those it made."""

from pathlib import Path

from omegaconf import DictConfig

from langevin.assembly.check import check_model
from langevin.assembly.components import SAMPLING
from langevin.assembly.run import launch, make_evaluation, open_reference
from langevin.assembly.saved import load_model, override, require_trusted
from langevin.checkpoint import find_checkpoint, folder_of
from langevin.digest import digest_of
from langevin.errors import UserError
from langevin.interrupt import stop_on_signal
from langevin.measure.report import report
from langevin.measure.samples import place_of_reference
from langevin.measured import FILE
from langevin.protocol import digest
from langevin.samplers.generate import share
from langevin.samplers.store import SampleStore


def measure_model(cfg: DictConfig) -> None:
    """Compute the metrics of a model's samples, print them, and write metrics.json into a folder of the run.

    Raises:
        UserError: when the model, the reference and the metrics are incompatible.
    """
    path = find_checkpoint(Path(cfg.checkpoint))
    model = load_model(path, cfg.trust)
    chosen = override(model.cfg, cfg, (*SAMPLING, "data", "loader"))
    for name in ("features", "metrics", "reference"):
        chosen[name] = cfg[name]
    if chosen.get("data") is None and chosen.reference is None:
        raise UserError("reference: it is not known what the model was trained on; give reference=PLACE or data=NAME")
    source = () if chosen.reference else ("data",)
    require_trusted(path, model.cfg, cfg, (*source, "loader"))
    check_model(chosen, (*SAMPLING, *source, "loader", "features", "metrics"), model.facts)
    generator = model.generator(chosen, cfg.labels)
    evaluation = make_evaluation(chosen)
    reference = open_reference(chosen)
    evaluation.prepare(cfg.num_samples, reference, generator.requested_labels(cfg.num_samples))
    evaluation.require_shape(model.facts.shape)

    fabric = launch(cfg.accelerator, cfg.devices)
    denoiser = model.denoiser.to(fabric.device)
    evaluation.to(fabric.device).gather()
    made = generator.record(denoiser, cfg.seed)
    weights = digest_of(denoiser.network)
    evaluations = folder_of(path) / "evaluations"
    meaning = {"weights": weights, "samples": made, "batch_size": cfg.batch_size}
    store = SampleStore(evaluations, "model", meaning)
    mine = share(cfg.num_samples, cfg.batch_size, fabric.global_rank, fabric.world_size)
    batches = generator(denoiser, mine, cfg.seed, cfg.batch_size, fabric.device, store=store)
    rounds = -(-cfg.num_samples // (cfg.batch_size * fabric.world_size))
    values = evaluation.measure(stop_on_signal(batches, rounds), len(mine), show=fabric.global_rank == 0)
    if fabric.global_rank == 0:
        protocol = evaluation.protocol(made, values)
        out = Path(cfg.out) if cfg.out else evaluations / f"step_{model.step:08d}-{digest(protocol)}"
        report(
            out,
            evaluation,
            values,
            protocol,
            model={"checkpoint": str(path), "step": model.step, "weights": weights, "data": model.facts.content},
            reference={"path": place_of_reference(chosen), "number": reference.number},
        )
        store.remove()
        print(f"{out / FILE}: {cfg.num_samples} samples of step {model.step}")
    fabric.barrier()
