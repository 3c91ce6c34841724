"""The benchmark of experiments/speed, at a tiny size."""

import json
import mmap
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments.speed import benchmark
from experiments.speed.alone import TRAINING, made, peak_memory
from experiments.speed.clock import Clock, Turn, one_round, ratio, spread, take_turns
from experiments.speed.measure import counted, work_of
from experiments.speed.ours import Interleaved, fit_of
from experiments.speed.report import BEGIN, END, write
from experiments.speed.utilisation import flops_of
from experiments.speed.work import Work

from langevin import __version__

pytest.importorskip("diffusers")
pytest.importorskip("matplotlib")

TINY = [
    "model.channels=128",
    "model.channel_multipliers=[1]",
    "model.blocks_per_level=1",
    "model.attention_resolutions=[]",
    "data.image_size=8",
    "--batch-size=4",
    "--images=20",
    "--sampling-steps=2",
    "--warm-up=1",
    "--device=cpu",
]
SAME_NETWORK = ("langevin", "network alone", "diffusers")


def measured(folder, *arguments):
    benchmark.main([*TINY, *arguments, f"--out={folder}"])
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    (folder / "README.md").write_text(f"before\n{BEGIN}old\n{END}after\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LANGEVIN_PEERS", raising=False)
        found = measured(folder, "--only=training,sampling,overheads", "--rounds=2")
    return found, folder


@pytest.mark.slow
def test_all_parts_are_there(results):
    found, folder = results
    assert set(found) == {"about", "training", "sampling", "overheads"}
    assert found["about"]["batch_size"] == 4
    assert found["about"]["versions"]["langevin"] == __version__
    assert found["about"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert (folder / "results.png").read_bytes().startswith(b"\x89PNG")
    skipped = found["training"]["skipped"]
    assert {"guided-diffusion", "improved-diffusion", "EDM SongUNet"} <= set(skipped)
    table = (folder / "results.md").read_text()
    for name in (*SAME_NETWORK, *skipped, "data", "gradient clipping", "DDIM, 2 steps"):
        assert name in table
    assert (folder / "README.md").read_text() == f"before\n{BEGIN}\n{table}\n{END}after\n"


@pytest.mark.slow
@pytest.mark.parametrize(("part", "calls"), [("training", 1), ("sampling", 2)])
def test_all_do_the_same_work(results, part, calls):
    found = results[0][part]
    rows = [found["contenders"][name] for name in SAME_NETWORK]
    assert len({row["parameters"] for row in rows}) == 1
    assert len({row["flops"] for row in rows}) == 1
    assert rows[0]["flops"] > 1e9
    assert all((row["calls"], row["images"]) == (calls, 4 * calls) for row in rows)
    assert 0 < found["difference_to_diffusers"] < 1e-5


def close(ratio, above, below):
    each = np.array(above) / below
    return ratio["median"] == pytest.approx(np.median(each)) and ratio["min"] == pytest.approx(each.min())


@pytest.mark.slow
@pytest.mark.parametrize("part", ["training", "sampling"])
def test_ratios_are_of_each_round(results, part):
    found = results[0][part]
    langevin = found["contenders"]["langevin"]
    for row in found["contenders"].values():
        assert len(row["seconds"]) == len(row["cpu_seconds"]) == 2
        assert close(row["langevin_over_it"], row["seconds"], langevin["seconds"])
        assert close(row["langevin_over_it_cpu"], row["cpu_seconds"], langevin["cpu_seconds"])
        assert close(row["images_per_second"], 4, row["seconds"])
        assert close(row["utilisation"], row["flops"] / np.array(row["cpu_seconds"]), found["peak_flops"])


@pytest.mark.slow
def test_overheads_are_shares_of_the_network_alone(results):
    parts, training = results[0]["overheads"], results[0]["training"]
    floor = parts["network alone"]
    for part in parts.values():
        assert close(part["share"], part["seconds"], floor["seconds"])
        assert close(part["share_cpu"], part["cpu_seconds"], floor["cpu_seconds"])
    whole, network = (training["contenders"][name] for name in ("langevin", "network alone"))
    assert close(training["over_network_alone"]["share"], whole["seconds"], network["seconds"])
    assert training["checkpoint"]["seconds"] > 0
    assert training["checkpoint"]["every_seconds"] >= 60


def test_a_ratio_is_the_median_of_ratios():
    assert ratio([1, 2, 30], [2, 2, 10]) == {
        "min": 0.5,
        "lower_quartile": 0.75,
        "median": 1,
        "upper_quartile": 2,
        "max": 3,
    }
    assert ratio([4, 6, 8], [2, 6, 2])["median"] == 2  # that of the medians is 3
    assert spread([3, 1, 2, 5, 4])["lower_quartile"] == 2


def test_turns_go_round_and_a_warm_up_does_not_count():
    calls = []
    turns = {name: Turn(lambda name=name: calls.append(name), times) for name, times in (("a", 1), ("b", 2), ("c", 1))}
    clock = Clock("cpu")
    for number in range(3):
        assert set(one_round(turns, number, clock)) == {"a", "b", "c"}
    assert "".join(calls) == "abbc" + "bbca" + "cabb"
    naps = iter([0.6, 0, 0, 0])
    times = take_turns({"slow at first": Turn(lambda: time.sleep(next(naps)))}, 1, 3, clock)
    assert len(times.wall["slow at first"]) == 3
    assert max(times.wall["slow at first"]) < 0.5


def test_seconds_are_of_one_act():
    asleep = Clock("cpu").time(Turn(lambda: time.sleep(0.1), 5))
    assert 0.1 <= asleep.wall < 0.45
    assert asleep.cpu < 0.02


def test_the_work_of_child_processes_counts():
    work = "import time\nwhile time.process_time() < 0.4: pass"
    took = Clock("cpu").time(Turn(lambda: subprocess.run([sys.executable, "-c", work], check=True)))
    assert 0.4 < took.cpu < 1


@pytest.mark.slow
def test_the_fit_s_clock_stands_still_while_others_have_their_turns(tmp_path):
    work = tiny_work(tmp_path / "work")
    interleaved = Interleaved("fit", 2, {"slow": Turn(lambda: time.sleep(1.5))}, "cpu")
    fit_of(work, tmp_path / "run", 4).run(interleaved)
    assert [len(seconds) for seconds in interleaved.times.wall.values()] == [2, 2]
    assert min(interleaved.times.wall["slow"]) >= 1.5
    assert interleaved.times.without(1).wall["fit"][0] < 1.5 / 2  # it would be more than that if it ran on
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def tiny_work(folder):
    folder.mkdir()
    return work_of(benchmark.parser().parse_intermixed_args(TINY), "cpu", folder)


def test_work_travels_to_another_process(tmp_path):
    work = tiny_work(tmp_path / "work")
    work.write(tmp_path / "work.json")
    read = Work.read(tmp_path / "work.json")
    assert read.overrides == work.overrides
    assert read.unet_2d["block_out_channels"] == [128]
    assert read.load_images().shape == (20, 3, 8, 8)
    assert read.load_images().dtype == torch.uint8


@pytest.mark.parametrize("name", [name for name in TRAINING if name not in SAME_NETWORK])
def test_a_peer_s_step_trains_its_own_network(tmp_path, name):
    work = tiny_work(tmp_path / "work")
    found, skipped = made({name: TRAINING[name], "ours": TRAINING["network alone"]}, work)
    if name in skipped:
        pytest.skip(skipped[name])
    step, ours = found[name], found["ours"]
    assert type(step.network).__module__.partition(".")[0] != "langevin"
    weights = [weight.detach().clone() for weight in step.network.parameters()]
    count = counted(step)
    assert (count["calls"], count["images"]) == (1, 4)
    changed = [not torch.equal(old, new) for old, new in zip(weights, step.network.parameters(), strict=True)]
    assert sum(changed) > 0.9 * len(changed)
    if name != "lucidrains":  # which has other blocks
        assert count["parameters"] == sum(weight.numel() for weight in ours.network.parameters())


def test_operations_are_counted():
    layer = torch.nn.Linear(30, 20)
    x = torch.randn(10, 30, requires_grad=True)
    forward = 2 * 10 * 30 * 20
    assert flops_of(lambda: layer(x)) == forward
    assert flops_of(lambda: layer(x).sum().backward()) == 3 * forward


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells what is held now")
def test_the_peak_of_memory_grows_and_stays():
    before, held = peak_memory("cpu"), 4096 * int(Path("/proc/self/statm").read_text().split()[1])
    block = mmap.mmap(-1, before - held + 100_000_000)  # not of the heap, which may have room
    np.frombuffer(block, np.uint8)[:] = 1
    assert before + 50_000_000 < peak_memory("cpu") < before + 200_000_000
    block.close()
    assert peak_memory("cpu") > before + 50_000_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only=training,speed"], ["--only", "speed", "allowed: training, sampling"]),
        (["--rounds=0"], ["--rounds", "0", "from 1 up"]),
        (["model.channel=3"], ["model.channel", "channels"]),
        (["model=dit_s"], ["model"]),
        (["model.channels=64"], ["model.channels", "64", "128"]),
    ],
)
def test_mistakes_are_reported(arguments, words, tmp_path, capsys):
    with pytest.raises(SystemExit):
        benchmark.main([*arguments, "--images=1", "--device=cpu", f"--out={tmp_path}"])
    output = capsys.readouterr().err
    assert all(word in output for word in words)
    assert "Traceback" not in output
    assert not list(tmp_path.iterdir())


def test_a_part_alone_is_written(tmp_path):
    about = {"versions": {}, "shape": [3, 8, 8], "device": "GPU", "cores": 2, "threads": 1, "precision": "32-true"}
    about |= {"options": [], "batch_size": 4, "rounds": 1, "warm_up": 1, "sampling_steps": 5}
    memory = {"training": {"langevin": 2_000_000_000, "lucidrains": 3_000_000_000}, "sampling": {"langevin": 10**9}}
    write(tmp_path, {"about": about, "memory": memory})
    table = (tmp_path / "results.md").read_text()
    assert "| langevin | 2.00 GB | 1.00 GB |\n| lucidrains | 3.00 GB |  |" in table
    assert not (tmp_path / "results.png").exists()


@pytest.mark.slow
def test_processes_of_their_own(tmp_path):
    found = measured(tmp_path, "--only=memory,startup", "--rounds=1")
    assert set(found["memory"]["training"]) >= set(SAME_NETWORK)
    assert set(found["memory"]["sampling"]) == set(SAME_NETWORK)
    for peaks in found["memory"].values():
        assert all(1e8 < peak < 1e10 for peak in peaks.values())
    seconds = {name: row["seconds"][0] for name, row in found["startup"].items()}
    assert seconds["import torch"] < min(seconds["langevin"], seconds["diffusers"])


@pytest.mark.slow
def test_roofline_counts_what_torch_counts(tmp_path):
    from experiments.speed import roofline
    from experiments.speed.ours import network_alone

    options = [*TINY, "model.attention_resolutions=[8]", "--rounds=2"]
    roofline.main([*options, f"--out={tmp_path}"])
    found = json.loads((tmp_path / "roofline.json").read_text())
    parsed = benchmark.parser().parse_intermixed_args(options)
    (tmp_path / "work").mkdir()
    expected = flops_of(network_alone(work_of(parsed, "cpu", tmp_path / "work")))
    kinds = {kind: sum(row["flops"] for row in rows) for kind, rows in roofline.by_kind(found)}
    attention = 4 * 4 * 64 * 64 * 128 * 4 * 3.5  # 4 layers, 4 images of 64 positions; backward takes 2.5 times as much
    assert sum(kinds.values()) - kinds["attention"] == expected
    assert kinds["attention"] == attention
    names = {row["name"] for row in found["operations"]}
    assert {"convolution_backward", "native_group_norm", "silu"} <= names
    assert "view" not in names
    assert all(row["least_seconds"] > 0 for row in found["operations"] if row["bytes"])
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")
    assert "| all |" in (tmp_path / "roofline.md").read_text()
