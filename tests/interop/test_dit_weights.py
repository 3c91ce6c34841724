"""DiT of diffusers and of the released code become ours, which compute the same, and come back as they were."""

import json
import re

import pytest
import safetensors.torch
import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel, DPMSolverMultistepScheduler
from helpers.commands import call, composed

from langevin.assembly.check import check_model
from langevin.assembly.components import SAMPLING, make_model, make_sampler
from langevin.diffusion.draws import SampleDraws
from langevin.errors import UserError
from langevin.interop.dit import from_diffusers_dit, read_released_dit
from langevin.interop.pipeline import read_folder
from langevin.spec import DataSpec

TINY = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 3,
    "out_channels": 6,
    "num_layers": 2,
    "sample_size": 8,
    "num_embeds_ada_norm": 7,
}
TIMES, LABELS = torch.tensor([0.0, 17.0, 999.0]), torch.tensor([0, 6, -1])


def transformer(**changes):
    """Of random weights; one embedding of time and label for all blocks, as published weights have it."""
    torch.manual_seed(0)
    network = DiTTransformer2DModel(**TINY | changes)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2 if parameter.ndim > 1 else 0.1)
    first, *others = (block.norm1.emb for block in network.transformer_blocks)
    for other in others:
        other.load_state_dict(first.state_dict())
    return network.eval()


def save(folder, network, **scheduler):
    network.save_pretrained(folder / "transformer")
    DDIMScheduler(**{"clip_sample": False} | scheduler).save_pretrained(folder / "scheduler")


def model_of(imported):
    cfg, _ = composed("train", *imported.overrides)
    cfg.sampler.steps = 10
    check_model(cfg, SAMPLING)
    spec = DataSpec.of_images(imported.channels, imported.image_size, imported.num_classes)
    denoiser = make_model(cfg, spec)
    model = {name: value for name, value in cfg.model.items() if name != "_target_"}
    denoiser.network.load_state_dict(imported.weights(model), strict=True)
    return cfg, denoiser.eval(), spec


def computed(network, x):
    """The output, and the gradient by the input of a fixed mixture of it."""
    x = x.clone().requires_grad_()
    output = network(x)
    mixture = torch.randn(output.shape, generator=torch.Generator().manual_seed(7))
    (gradient,) = torch.autograd.grad((output * mixture).sum(), x)
    return output.detach(), gradient


def assert_same(ours, theirs):
    (output, gradient), (expected, expected_gradient) = ours, theirs
    assert expected.std() > 0.1
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5 * float(expected.std()))
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-4 * float(expected_gradient.std()))


@pytest.mark.parametrize(
    "changes",
    [{}, {"norm_eps": 1e-6, "out_channels": 3}, {"patch_size": 4, "num_attention_heads": 4}, {"norm_eps": 0.1}],
    ids=lambda changes: "-".join(changes),
)
def test_equals_diffusers(changes, tmp_path):
    theirs = transformer(**changes)
    save(tmp_path, theirs)
    _, denoiser, _ = model_of(read_folder(tmp_path))
    x, labels = torch.randn(3, 3, 8, 8), torch.where(LABELS < 0, 7, LABELS)
    expected = computed(lambda x: theirs(x, TIMES, labels).sample, x)
    assert_same(computed(lambda x: denoiser.network(x, TIMES, {"label": LABELS}), x), expected)


def released(theirs):
    """The weights of a transformer of diffusers as the released code names them, whose forward it is."""
    emb = theirs.transformer_blocks[0].norm1.emb
    layers = {
        "x_embedder.proj": theirs.pos_embed.proj,
        "t_embedder.mlp.0": emb.timestep_embedder.linear_1,
        "t_embedder.mlp.2": emb.timestep_embedder.linear_2,
        "final_layer.adaLN_modulation.1": theirs.proj_out_1,
        "final_layer.linear": theirs.proj_out_2,
    }
    state = {
        "pos_embed": theirs.pos_embed.pos_embed,
        "y_embedder.embedding_table.weight": emb.class_embedder.embedding_table.weight,
    }
    for index, block in enumerate(theirs.transformer_blocks):
        emb.time_proj.downscale_freq_shift = block.norm1.emb.time_proj.downscale_freq_shift = 0
        layers |= {
            f"blocks.{index}.adaLN_modulation.1": block.norm1.linear,
            f"blocks.{index}.attn.proj": block.attn1.to_out[0],
            f"blocks.{index}.mlp.fc1": block.ff.net[0].proj,
            f"blocks.{index}.mlp.fc2": block.ff.net[2],
        }
        for kind in ("weight", "bias"):
            parts = [getattr(getattr(block.attn1, f"to_{part}"), kind) for part in "qkv"]
            state[f"blocks.{index}.attn.qkv.{kind}"] = torch.cat(parts)
    state |= {f"{name}.{kind}": getattr(layer, kind) for name, layer in layers.items() for kind in ("weight", "bias")}
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def test_equals_the_released_code():
    """DiT-S/2, but for its depth. Its heads do not show in the weights, and follow from the width."""
    theirs = transformer(num_attention_heads=6, attention_head_dim=64, norm_eps=1e-6, in_channels=4, out_channels=8)
    for parameter in theirs.parameters():
        parameter.data *= 0.3
    imported = read_released_dit(released(theirs))
    assert (imported.channels, imported.image_size, imported.num_classes) == (4, 8, 7)
    _, denoiser, _ = model_of(imported)
    x, labels = torch.randn(3, 4, 8, 8), torch.where(LABELS < 0, 7, LABELS)
    expected = computed(lambda x: theirs(x, TIMES, labels).sample, x)
    assert_same(computed(lambda x: denoiser.network(x, TIMES, {"label": LABELS}), x), expected)
    assert denoiser.variance.learned


def test_released_weights_that_cannot_be(tmp_path):
    state = released(transformer())
    with pytest.raises(UserError, match="the patches are 32 wide; allowed: 384, 768, 1024, 1152"):
        read_released_dit(state)
    state = released(transformer(num_attention_heads=6, attention_head_dim=64, in_channels=4, out_channels=8))
    with pytest.raises(UserError, match="'pos_embed' is not the sines and cosines"):
        read_released_dit(state | {"pos_embed": 2 * state["pos_embed"]})
    torch.save(state, tmp_path / "DiT.pt")
    result = call("convert", f"import={tmp_path / 'DiT.pt'}", f"out={tmp_path / 'run'}")
    assert result.status == 1
    assert "diffuses latents of 4 channels; allowed: a model of images of 1 or 3 channels" in result.err


def file_of(folder):
    return safetensors.torch.load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")


def test_there_and_back(tmp_path):
    save(tmp_path / "folder", transformer(), prediction_type="v_prediction", num_train_timesteps=300)
    assert call("convert", f"import={tmp_path / 'folder'}", f"out={tmp_path / 'run'}").status == 0
    result = call("convert", f"export={tmp_path / 'run'}", f"out={tmp_path / 'back'}")
    assert result.status == 0, result.err
    assert "DiTPipeline also needs an autoencoder" in result.out
    assert "guides with class 1000 for no label; here that is 7" in result.out
    before, after = file_of(tmp_path / "folder"), file_of(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    back = DiTTransformer2DModel.from_pretrained(tmp_path / "back", subfolder="transformer", low_cpu_mem_usage=False)
    first = DiTTransformer2DModel.from_pretrained(tmp_path / "folder", subfolder="transformer", low_cpu_mem_usage=False)
    own = {name: value for name, value in first.config.items() if not name.startswith("_")}
    assert {name: back.config[name] for name in own} == own

    # The loop of DiTPipeline without its autoencoder, which splits off the variance.
    scheduler = DDIMScheduler.from_pretrained(tmp_path / "back", subfolder="scheduler")
    scheduler.set_timesteps(10)
    cfg, denoiser, spec = model_of(read_folder(tmp_path / "back"))
    labels = torch.tensor([0, 6])
    x = SampleDraws(0, range(2), (3, 8, 8)).normal()
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(back(x, t.expand(2), labels).sample[:, :3], t, x).prev_sample
    made = make_sampler(cfg, spec)(denoiser, SampleDraws(0, range(2), (3, 8, 8)), {"label": labels})
    assert x.std() > 0.1
    torch.testing.assert_close(made, x, rtol=0, atol=1e-4)


def trained(folder, *overrides):
    tiny = ("model=dit_s", "model.width=32", "model.depth=1", "model.heads=2", "model.patch_size=4")
    quick = ("trainer.max_steps=1", "evaluation.num_samples=2", "callbacks=[checkpoint]", "metrics=[]", "batch_size=2")
    run = ("experiment=digits", *RESET, *tiny, *quick, f"output_dir={folder}", "name=run", *overrides)
    result = call("train", *run)
    assert result.status == 0, result.err
    return folder / "run"


RESET = ("evaluation.every_n_steps=1", "trainer.val_check_interval=1")


@pytest.mark.slow
def test_a_run_of_ours(tmp_path):
    run = trained(tmp_path, "model.time_endpoint=true")
    result = call("convert", f"export={run}", f"out={tmp_path / 'out'}")
    assert result.status == 0, result.err
    assert DPMSolverMultistepScheduler.from_pretrained(tmp_path / "out", subfolder="scheduler")
    network = DiTTransformer2DModel.from_pretrained(
        tmp_path / "out", subfolder="transformer", low_cpu_mem_usage=False
    ).eval()
    assert not (tmp_path / "out" / "model_index.json").exists()
    _, denoiser, _ = model_of(read_folder(tmp_path / "out"))
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        expected = network(x, TIMES, torch.tensor([0, 9, 10])).sample
        torch.testing.assert_close(
            denoiser.network(x, TIMES, {"label": torch.tensor([0, 9, -1])}), expected, rtol=0, atol=1e-5
        )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((), "model.time_endpoint is false; allowed: a model trained with true, for the time's frequencies of diffus"),
        (("model.time_endpoint=true", "conditions=[]"), "conditions are without class_label; allowed: [class_label]"),
    ],
)
def test_runs_that_diffusers_cannot_hold(overrides, words, tmp_path):
    run = trained(tmp_path, *overrides)
    result = call("convert", f"export={run}", f"out={tmp_path / 'out'}")
    assert result.status == 1
    assert words in result.err
    assert not (tmp_path / "out").exists()


def test_blocks_with_embeddings_of_their_own():
    network = transformer()
    network.transformer_blocks[1].norm1.emb.timestep_embedder.linear_1.weight.data += 1
    with pytest.raises(UserError, match=r"'transformer_blocks\.1\..*\.linear_1\.weight' differs from that of block 0"):
        from_diffusers_dit(network.state_dict(), {"depth": 2})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"activation_fn": "geglu"}, 'activation_fn is "geglu"; allowed: gelu-approximate'),
        ({"dropout": 0.1}, "dropout is 0.1; allowed: 0"),
        ({"attention_bias": False}, "attention_bias is false; allowed: True"),
        ({"attention_head_dim": 15}, "attention_head_dim is 15; allowed: such that num_attention_heads times it"),
        ({"patch_size": 3}, "patch_size is 3; allowed: a divisor of sample_size, 8"),
        ({"caption_channels": 64}, "caption_channels is 64; allowed: null, for it is not known here"),
        ({"out_channels": 4}, "out_channels is 4; allowed: 3, as in_channels, or 6"),
        ({"_class_name": "SanaTransformer2DModel"}, '_class_name is "SanaTransformer2DModel"; allowed: UNet2DModel, '),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_configs_that_cannot_be(fields, words, tmp_path):
    save(tmp_path, transformer())
    file = tmp_path / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    with pytest.raises(UserError, match=re.escape(words)) as error:
        read_folder(tmp_path)
    assert str(error.value).startswith(str(file))


def test_the_old_name_of_the_class(tmp_path):
    """facebook/DiT-XL-2-256 has it, with fields of that class that are off, and without norm_eps."""
    save(tmp_path, transformer())
    file = tmp_path / "transformer" / "config.json"
    config = json.loads(file.read_text()) | {"_class_name": "Transformer2DModel", "double_self_attention": False}
    del config["norm_eps"]
    file.write_text(json.dumps(config | {"cross_attention_dim": None}))
    cfg, _, _ = model_of(read_folder(tmp_path))
    assert (cfg.model.mlp_norm_epsilon, cfg.model.time_endpoint) == (1e-5, True)
