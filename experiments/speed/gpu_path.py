"""What a GPU would be asked for: kernels, copies, waits, graphs of the compiler, memory; read without one.

Usage: ``python -m experiments.speed.gpu_path [--only PARTS] [--out FOLDER]``; see the README, and ``--help``.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from langevin.cli import calm_threads

calm_threads()  # as every command does, before torch is imported

import torch  # noqa: E402
from experiments.speed.fake_gpu import GPU, backward, fake_gpu, made_there  # noqa: E402
from experiments.speed.ours import composed  # noqa: E402
from experiments.speed.roofline import is_view, tensors_of  # noqa: E402
from hydra.utils import get_class, instantiate  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import mse_loss  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from langevin.assembly.components import make_process, make_sampler  # noqa: E402
from langevin.config.validate import CONF  # noqa: E402
from langevin.diffusion.denoiser import Denoiser  # noqa: E402
from langevin.diffusion.draws import SampleDraws  # noqa: E402
from langevin.files import write_atomically, write_json  # noqa: E402
from langevin.magnitudes import force_magnitudes, mp_layers  # noqa: E402
from langevin.networks.compiled import blocks_of  # noqa: E402
from langevin.networks.network import Network  # noqa: E402
from langevin.spec import DataSpec  # noqa: E402
from langevin.training.ema import average  # noqa: E402

HERE = Path(__file__).parent
NETWORKS = {"unet": 32, "adm_64": 64, "edm2_s": 64, "dit_b": 32}
"""The presets of `model=`, and the side of their images, of three channels."""
OPTIMIZERS = ("adam", "adamw", "muon")
"""Of conf/optimizer; torch has no fused SGD for tensors without values."""
PRECISIONS = ("32-true", "bf16-mixed")
"""By Lightning's names; trainer=gpu trains in the second."""
TRACED: dict[str, dict[str, Any]] = {
    # Dropout for CPUs is not traced: it fills tensors with random bits in place.
    "unet": {"channels": 32, "channel_multipliers": [1, 2], "blocks_per_level": 1, "dropout": 0.0},
    "edm2_xs": {"channels": 32, "channel_multipliers": [1, 2], "blocks_per_level": 1, "head_channels": 16},
    "dit_s": {},
    "mlp": {},
}
"""The presets that are traced, and what is changed of them."""
PHASES = ("magnitudes", "forward", "backward", "clipping", "optimizer", "EMA")
BATCH = 16
GPUS = (24, 80, 141)
"""GB of memory."""
SPARE = 2e9
"""Bytes of a GPU that are left to CUDA, its libraries and gaps between tensors: an assumption."""
STEPS = 10
VALUELESS = torch.device("meta")
"""A device whose tensors have no values: what asks for one fails."""
ALLOCATE = frozenset(
    ("empty", "empty_strided", "new_empty", "new_empty_strided", "empty_like", "detach", "_unsafe_view", "lift_fresh")
)
"""Operations that start no kernel, beside views."""
COPY = frozenset(("clone", "_to_copy", "copy_"))
WAIT = frozenset(("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2"))
"""Operations whose result the host, or the size of a tensor, needs."""
NAMES = {
    "kernels": "operations that start kernels, one at least; a convolution's copies of its input are among them",
    "casts": "copies to another type",
    "transposed": "copies to another layout",
    "inside": "copies to another layout that a convolution makes of what it is given",
    "waits": "operations for which the host waits",
    "bytes": "bytes that all of them read and write",
}
"""What is counted."""


class Asked(TorchDispatchMode):
    """Counts what the device is asked for, phase by phase.

    Attributes:
        phase: under which name the next operations are counted.
        found: by phase, and then by the names in `NAMES`.
        convolutions: [given channels innermost, all], forward, of more than four channels.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.phase = ""
        self.found: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys((*NAMES, "to the device"), 0))
        self.convolutions = [0, 0]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count it."""
        out = func(*args, **(kwargs or {}))
        inputs, outputs = tensors_of((args, kwargs)), tensors_of(out)
        here = [tensor for tensor in (*inputs, *outputs) if tensor.device.type == self.device.type]
        name = func._opname
        if not here or func.namespace != "aten" or is_view(func) or name in ALLOCATE:
            return out
        found = self.found[self.phase]
        moved = {id(tensor): tensor.numel() * tensor.itemsize for tensor in (*inputs, *outputs)}
        found["kernels"] += 1
        found["bytes"] += sum(moved.values())
        found["waits"] += name in WAIT
        if name in COPY:
            source = inputs[-1]
            target = inputs[0] if name == "copy_" else outputs[0]
            moved_over = source.device != target.device
            found["to the device"] += moved_over and source.device.type == "cpu"
            found["waits"] += moved_over and target.device.type == "cpu"
            found["casts"] += source.dtype != target.dtype
            found["transposed"] += not moved_over and source.stride() != target.stride()
        if name.startswith("convolution") and inputs[0].ndim == 4:
            given = inputs[: 2 if name.endswith("backward") else 1]
            for tensor in given:
                if tensor.shape[1] > 4 and not tensor.is_contiguous(memory_format=torch.channels_last):
                    found["inside"] += 1
                    found["kernels"] += 1
                    found["bytes"] += 2 * tensor.numel() * tensor.itemsize
            if name == "convolution" and inputs[0].shape[1] > 4:
                self.convolutions[0] += inputs[0].is_contiguous(memory_format=torch.channels_last)
                self.convolutions[1] += 1
        return out


Found = dict[str, Any]


def preset(name: str, size: int, **changes: Any) -> Network:
    """A network of conf/model for three channels and images of a size."""
    node = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{name}.yaml"))
    assert isinstance(node, dict)
    cls = get_class(node.pop("_target_"))
    facts = {"in_channels": 3, "out_channels": 3, "condition": None, **({"image_size": size} if cls.axes else {})}
    network = cls(**facts, **{**node, **changes})
    assert isinstance(network, Network)
    return network


def optimizer_of(name: str, network: nn.Module) -> torch.optim.Optimizer:
    """An optimizer of conf/optimizer, as `langevin.assembly.run.make_module` makes it."""
    node = OmegaConf.load(CONF / "optimizer" / f"{name}.yaml")
    optimizer = instantiate(node, _partial_=True)(params=list(network.parameters()), fused=True)
    assert isinstance(optimizer, torch.optim.Optimizer)
    return optimizer


def loss_of(network: nn.Module, batch: int, size: int) -> Tensor:
    """The squared error of a network on a batch."""
    x = torch.empty(batch, 3, size, size, device=GPU)
    output = network(x, torch.empty(batch, device=GPU))
    torch.clear_autocast_cache()  # as torch.autocast does where it ends
    return mse_loss(output.float(), torch.empty_like(x))


def step(name: str, size: int, batch: int, precision: str, as_torch: bool = False) -> Found:
    """Count what a training step of a network asks for, after one by which the optimizer has its state.

    Args:
        name: of conf/model.
        size: of the images.
        batch: how many.
        precision: of the forward pass.
        as_torch: leave the layout in which normalization returns features as it is, see `innermost`.
    """
    with ExitStack() as stack:
        for module in ("networks.blocks.residual", "networks.unet") if as_torch else ():
            stack.enter_context(patch(f"langevin.{module}.innermost", lambda features: features))
        stack.enter_context(fake_gpu(precision))
        network, copy = (made_there(lambda: preset(name, size)) for _ in range(2))
        copy.requires_grad_(False)
        optimizer = optimizer_of("adamw", network)
        for _ in range(2):
            asked = Asked(GPU)
            with asked:
                asked.phase = "magnitudes"
                force_magnitudes(mp_layers(network))
                asked.phase = "forward"
                loss = loss_of(network, batch, size)
                asked.phase = "backward"
                backward(loss)
                asked.phase = "clipping"  # with tensors of a subclass torch would not choose this way by itself
                nn.utils.clip_grad_norm_(network.parameters(), 1.0, foreach=True)
                asked.phase = "optimizer"
                optimizer.step()
                asked.phase = "EMA"
                with torch.no_grad():
                    average(copy, network, 0.999)
            optimizer.zero_grad()
    innermost, convolutions = asked.convolutions
    return {"phases": dict(asked.found), "innermost": innermost, "convolutions": convolutions}


def optimizers(name: str, size: int) -> Found:
    """Count what a step of each optimizer asks for."""
    found: Found = {}
    for each in OPTIMIZERS:
        with fake_gpu("32-true"):
            network = made_there(lambda: preset(name, size))
            optimizer = optimizer_of(each, network)
            for _ in range(2):
                for weight in network.parameters():
                    weight.grad = torch.empty_like(weight)
                asked = Asked(GPU)
                with asked:
                    optimizer.step()
        found[each] = asked.found[""]
    return found


def memory(name: str, size: int, precision: str) -> Found:
    """Count the bytes of a training step: what does not depend on the batch, and what a sample adds."""
    kept: dict[int, int] = {}
    with fake_gpu(precision):
        network = made_there(lambda: preset(name, size))
        weights = sum(weight.numel() * weight.itemsize for weight in network.parameters())
        own = {weight.untyped_storage()._cdata for weight in network.parameters()}
        of_batch = []
        for batch in (1, 3):
            kept = {}
            alive: list[Tensor] = []  # so that no other storage gets the address of one that is gone

            def keep(tensor: Tensor, kept: dict[int, int] = kept, alive: list[Tensor] = alive) -> Tensor:
                storage = tensor.untyped_storage()
                if storage._cdata not in own:
                    kept[storage._cdata] = storage.nbytes()
                    alive.append(tensor)
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss_of(network, batch, size)
            of_batch.append(sum(kept.values()))
    sample = (of_batch[1] - of_batch[0]) / 2
    fixed = 5 * weights + of_batch[0] - sample  # weights, gradients, two moments, EMA weights; casts of weights
    largest = {gpu: max(0, int((gpu * 1e9 - SPARE - fixed) / sample)) for gpu in GPUS}
    return {"weights": weights, "fixed": fixed, "sample": sample, "largest": largest}


def graphs(name: str, **changes: Any) -> Found:
    """Trace the blocks of a network as `compile=true` compiles them, without compiling, and the network as a whole."""
    import torch._dynamo as dynamo

    side = 32
    traced: list[int] = []

    def traces(graph: Any, example: object) -> Any:
        traced.append(len(graph.graph.nodes))
        return graph.forward

    def example(batch: int) -> tuple[Tensor, Tensor]:
        return torch.randn(batch, 3, *(side,) * network.axes), torch.full((batch,), 500.0)

    def run(batch: int) -> int:
        network(*example(batch)).square().mean().backward()
        return len(traced)

    dynamo.reset()
    network = preset(name, side, **changes)
    blocks = blocks_of(network) or [network]
    with dynamo.config.patch(recompile_limit=1000):
        for block in blocks:
            block.compile(dynamic=False, fullgraph=True, backend=traces)
        counts = [run(batch) for batch in (2, 2, 3)]
    dynamo.reset()
    explained = dynamo.explain(preset(name, side, **changes))(*example(2))
    dynamo.reset()
    return {
        "blocks": len(blocks),
        "traced": counts[0],
        "again": counts[1] - counts[0],
        "other batch": counts[2] - counts[1],
        "breaks in the whole": explained.graph_break_count,
    }


class Passing(nn.Module):
    """A network that computes nothing, to see what a sampler asks for besides."""

    def forward(self, x: Tensor, c_noise: Tensor, cond: object = None) -> Tensor:
        """Return what it is given."""
        return x


def sampling(name: str) -> Found:
    """Count what a sampler asks of the device in a step, beside the network; one that waits for a value fails."""
    cfg = composed([f"sampler={name}", f"sampler.steps={STEPS}", "data=cifar10", "model=unet"])
    spec, process = DataSpec.of_images(3, 32, None), make_process(cfg, 32)
    assert process is not None
    sampler = make_sampler(cfg, spec)
    asked = Asked(VALUELESS)
    with asked:
        sampler(Denoiser(Passing(), process), SampleDraws(0, range(BATCH), spec.shape, VALUELESS))
    found = asked.found[""]
    return {each: found[each] / STEPS for each in ("kernels", "to the device", "waits")}


PARTS: dict[str, Callable[[], Found]] = {
    "steps": lambda: {
        name: {each: step(name, size, BATCH, each) for each in (PRECISIONS if name == "unet" else PRECISIONS[1:])}
        for name, size in NETWORKS.items()
    },
    "as torch": lambda: {"unet": {each: step("unet", 32, BATCH, each, as_torch=True) for each in PRECISIONS}},
    "optimizers": lambda: optimizers("unet", NETWORKS["unet"]),
    "samplers": lambda: {path.stem: sampling(path.stem) for path in sorted((CONF / "sampler").glob("*.yaml"))},
    "graphs": lambda: {name: graphs(name, **changes) for name, changes in TRACED.items()},
    "memory": lambda: {
        name: {each: memory(name, size, each) for each in PRECISIONS} for name, size in NETWORKS.items()
    },
}


def step_rows(steps: Found, note: str = "") -> list[list[str]]:
    """A row for each network and precision."""
    rows = [["a step of 16 samples", *PHASES, "all", "casts", "transposed", "of these by convolutions", "waits", "GB"]]
    rows[0].append("convolutions given channels innermost")
    for name, precisions in steps.items():
        for precision, found in precisions.items():
            phases = found["phases"]
            whole = {each: sum(phase[each] for phase in phases.values()) for each in NAMES}
            row = [f"`{name}`, {precision}{note}", *(str(phases.get(phase, {}).get("kernels", 0)) for phase in PHASES)]
            row += [f"{whole['kernels']:,}", str(whole["casts"]), str(whole["transposed"] + whole["inside"])]
            row += [str(whole["inside"]), str(whole["waits"]), f"{whole['bytes'] / 1e9:.2f}"]
            rows.append([*row, f"{found['innermost']} of {found['convolutions']}"])
    return rows


def memory_rows(found: Found) -> list[list[str]]:
    """A row for each network and precision."""
    rows = [["", "parameters", "whatever the batch", "a sample", *(f"{gpu} GB" for gpu in GPUS)]]
    for name, precisions in found.items():
        for precision, each in precisions.items():
            largest = [f"{number:,}" if number else "none" for number in each["largest"].values()]
            row = [f"`{name}`, {NETWORKS[name]} x {NETWORKS[name]}, {precision}", f"{each['weights'] / 4e6:.0f}M"]
            rows.append([*row, f"{each['fixed'] / 1e9:.2f} GB", f"{each['sample'] / 1e6:.0f} MB", *largest])
    return rows


def plain_rows(found: Found, columns: Sequence[str], first: str) -> list[list[str]]:
    """A row for each name."""
    rows = [[f"{each[column]:g}" for column in columns] for each in found.values()]
    return [[first, *columns], *([f"`{name}`", *row] for name, row in zip(found, rows, strict=True))]


def tables(found: Found) -> str:
    """What was found, as Markdown."""
    shown = {
        "steps": step_rows,
        "as torch": lambda part: step_rows(part, " before"),
        "optimizers": lambda part: plain_rows(part, ["kernels", "casts", "waits"], "optimizer, a step of `unet`"),
        "samplers": lambda part: plain_rows(
            part, ["kernels", "to the device", "waits"], f"sampler, {STEPS} steps: each, without the network"
        ),
        "graphs": lambda part: plain_rows(part, list(next(iter(part.values()))), "compiler"),
        "memory": memory_rows,
    }
    parts = []
    for part, rows_of in shown.items():
        if part in found:
            head, *rows = rows_of(found[part])
            lines = [head, ["---"] * len(head), *rows]
            parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read what is asked for, and write gpu_path.json and gpu_path.md; in these all other parts stay as they were."""
    asked = argparse.ArgumentParser("python -m experiments.speed.gpu_path", description=(__doc__ or "").splitlines()[0])
    asked.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)")
    asked.add_argument("--out", type=Path, default=HERE, help="folder of the results (default: that of this file)")
    options = asked.parse_args(arguments)
    place = options.out / "gpu_path.json"
    found = json.loads(place.read_text()) if place.exists() else {}
    for part in options.only:
        found |= {"torch": torch.__version__, part: PARTS[part]()}
        write_json(place, found)
    text = tables(found)
    write_atomically(options.out / "gpu_path.md", lambda file: file.write(text.encode()))
    print(text)


if __name__ == "__main__":
    main()
