"""Networks sharded over two processes (gloo): every preset, against the whole network in one."""

import pytest
import torch
from training_helpers import start

from langevin.config.validate import CONF

pytestmark = pytest.mark.slow

# Every network is narrow, or this would take minutes. The whole network learns from the mean of both processes' losses.
SCRIPT = """
import copy, functools
from pathlib import Path
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import distributed, multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from langevin.config.validate import CONF
from langevin.digest import digest_of
from langevin.networks.compiled import blocks_of
from langevin.conditions.class_label import ClassLabel
from langevin.conditions.condition import Several
from langevin.conditions.vector import Vector
from langevin.networks.network import Network
from langevin.training.ema import StepEMA
from langevin.training.shares import full_tensor, share_out, summon_full_params
from training_helpers import held

NARROW = {"channels": 32, "blocks_per_level": 1, "dropout": 0.0, "heads": None, "width": 32, "depth": 2}
NARROW |= {"widths": [8, 16], "time_channels": 8, "channel_multipliers": [1, 2], "attention_resolutions": [4]}

def label(dim):
    return ClassLabel(10, 0.1, dim)

def several(dim):
    return Several({"label": label(dim), "vector": Vector(3, 0.1, dim)})

def networks():
    for path in sorted(CONF.glob("classifier/*.yaml")) + sorted(CONF.glob("model/*.yaml")):
        own = OmegaConf.to_container(OmegaConf.load(path))
        cls = get_class(own.pop("_target_"))
        own |= {name: value for name, value in NARROW.items() if name in own}
        own |= {"head_channels": 16} if own.get("head_channels") else {"heads": 2} if "patch_size" in own else {}
        if path.parent.name == "classifier":
            yield path.stem, cls(in_channels=1, image_size=8, num_classes=10, **own)
            continue
        made = functools.partial(cls, in_channels=1, out_channels=1)  # fewer than processes
        if cls.axes:
            made.keywords["image_size"] = 8
        name = f"model={path.stem}"
        yield name, made(condition=label, **own)
        if path.stem in ("dit_s", "unet_small"):
            yield f"{name} that computes again", made(condition=label, **own | {"checkpointing": True})
        if path.stem == "unet_small":
            yield "several conditions", made(condition=several, **own)
            yield "tokens of several conditions", made(condition=several, **own | {"cross_attention": True})

def loss(network, x, t, cond):
    return (network(x, t, cond) if isinstance(network, Network) else network(x, t)).square().mean()

def apart(ours, theirs):
    pairs = [(full_tensor(a.detach()), b.detach()) for a, b in zip(ours, theirs, strict=True)]
    return float(max((a - b).abs().max() for a, b in pairs) / max(b.abs().max() for _, b in pairs))

def work(rank, folder):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    distributed.init_process_group("gloo", f"file://{folder}/group", rank=rank, world_size=2)
    mesh, found = init_device_mesh("cpu", (2,)), {}
    for name, network in networks():
        generator = torch.Generator().manual_seed(0)
        for weight in network.parameters():  # nothing stays zero
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.2 + 0.05)
        size = (8,) * getattr(network, "axes", 2)
        x, t = torch.randn(4, 1, *size, generator=generator), torch.tensor([1.0, 30.0, 500.0, 990.0])
        cond = {"label": torch.tensor([0, 5, -1, 9]), "vector": torch.randn(4, 3, generator=generator)}
        parts = [(x[r::2], t[r::2], {key: value[r::2] for key, value in cond.items()}) for r in (0, 1)]
        ema = StepEMA(network, max_decay=0.6, warm_up=False)
        alone, alone_ema = copy.deepcopy(network), copy.deepcopy(ema)
        share_out(network, ema.networks, mesh)

        about = found[name] = {"shared": sum(isinstance(module, FSDPModule) for module in network.modules())}
        about["blocks"], about["all"] = len(blocks_of(alone)), sum(weight.nbytes for weight in alone.parameters())
        kept = list(ema.network.parameters())
        with summon_full_params(ema.network):
            about["same digest"] = digest_of(ema.network) == digest_of(alone_ema.network)
            if rank == 0:  # a forward in which the other process has no part
                about["same loss"] = torch.equal(loss(ema.network, *parts[1]), loss(alone_ema.network, *parts[1]))
        about["put back"] = all(a is b for a, b in zip(kept, ema.network.parameters(), strict=True))

        ours, theirs = (
            torch.optim.AdamW(each.parameters(), lr=1e-2, eps=1e-2, fused=True) for each in (network, alone)
        )
        for step in (1, 2):
            loss(network, *parts[rank]).backward()
            (sum(loss(alone, *part) for part in parts) / 2).backward()
            about["gradients"] = apart(*([each.grad for each in net.parameters()] for net in (network, alone)))
            about["norms"] = [
                float(full_tensor(torch.nn.utils.clip_grad_norm_(each.parameters(), 0.5))) for each in (network, alone)
            ]
            gradients = held([weight.grad for weight in network.parameters()])
            for optimizer in (ours, theirs):
                optimizer.step()
                optimizer.zero_grad()
            ema.update(network, step, 4)
            alone_ema.update(alone, step, 4)
        about["weights"] = apart(network.parameters(), alone.parameters())
        about["average"] = apart(ema.network.parameters(), alone_ema.network.parameters())
        about["held"] = {
            "weights": held(network.parameters()),
            "gradients": gradients,
            "average": held(ema.network.parameters()),
            **{key: held(state[key] for state in ours.state.values()) for key in ("exp_avg", "exp_avg_sq")},
        }
    torch.save(found, f"{folder}/rank_{rank}.pt")
    distributed.destroy_process_group()

if __name__ == "__main__":
    multiprocessing.start_processes(
        work, (str(Path(__file__).parent),), nprocs=2, start_method="fork"
    )
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shares")
    (folder / "script.py").write_text(SCRIPT)
    start(folder / "script.py")
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_the_presets_are_there(ranks):
    presets = {f"model={path.stem}" for path in (CONF / "model").glob("*.yaml")}
    assert presets < ranks[0].keys()


def test_each_block_is_shared_and_so_is_what_lies_outside(ranks):
    for name, found in ranks[0].items():
        assert found["shared"] == found["blocks"] + 1 > 2, name


def test_each_process_holds_half(ranks):
    for name, found in ranks[0].items():
        assert len(found["held"]) == 5
        for kind, held in found["held"].items():
            both = held + ranks[1][name]["held"][kind]
            assert found["all"] <= both < 1.03 * found["all"], (name, kind)
            assert 0.45 * both < held < 0.55 * both, (name, kind)  # a tensor of one row is the first one's alone


def test_the_whole_average_is_the_average(ranks):
    for name, found in ranks[0].items():
        assert found["same loss"], name
        assert all(rank[name]["same digest"] and rank[name]["put back"] for rank in ranks), name


def test_gradients_and_steps_are_those_of_the_whole(ranks):
    for rank in ranks:
        for name, found in rank.items():
            ours, theirs = found["norms"]
            assert ours == pytest.approx(theirs, rel=1e-5), name
            assert max(found[kind] for kind in ("gradients", "weights", "average")) < 1e-5, name
