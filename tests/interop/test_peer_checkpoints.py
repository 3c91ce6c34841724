"""Models of OpenAI's and EDM's own code, filled at random, and what is read of their weights: the same predictions.

LANGEVIN_PEERS names a folder with checkouts of improved-diffusion, guided-diffusion and edm; peers.md says how to get
them and what came out.
"""

import argparse

import pytest
import torch
from helpers.commands import composed
from helpers.draws import Given
from networks.network_helpers import norms, randomize
from peer_states import edm_state, openai_classifier_state, openai_state, shapes, upsampler_state
from test_edm_reading import ADM, DDPMPP, NCSNPP
from test_openai_classifier import PUBLISHED as PUBLISHED_CLASSIFIERS
from test_openai_flags import PUBLISHED
from test_openai_flags import UPSAMPLERS as PUBLISHED_UPSAMPLERS
from torch.nn.functional import one_hot

from langevin.assembly.check import check_model
from langevin.assembly.components import make_model, make_objective
from langevin.guidance.classifier import ClassifierGuidance
from langevin.guidance.guidance import Guided
from langevin.interop.edm import read_edm
from langevin.interop.openai import read_openai
from langevin.interop.openai_classifier import read_openai_classifier
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.sampler import Predictor
from langevin.samplers.timestep_spacing import Trailing
from langevin.spec import DataSpec

BATCH = 4


def filled(imported):
    """What is made of an imported model or classifier, and its config."""
    cfg, _ = composed("train", *imported.overrides)
    spec = DataSpec.of_images(imported.channels, imported.image_size, imported.num_classes)
    check_model(cfg, spec=spec)
    model = make_model(cfg, spec).eval()
    parameters = {name: value for name, value in (cfg.get("model") or cfg.classifier).items() if name != "_target_"}
    model.network.load_state_dict(imported.weights(parameters), strict=True)
    return model, cfg


def model_of(imported):
    """What is made of an imported model, and what trains it on."""
    denoiser, cfg = filled(imported)
    check_model(cfg, ("objective", "weighting", "time_sampler"))
    return denoiser, make_objective(cfg, DataSpec.of_images(3, 32, None))


def assert_same(**pairs):
    """Ours and theirs, up to 1e-5 of the greatest value in each image."""
    differences = {}
    for name, (ours, theirs) in pairs.items():
        difference, scale = (tensor.flatten(1).abs().amax(1) for tensor in (ours - theirs, theirs.double()))
        differences[name] = float((difference / scale).max())
    print(", ".join(f"{name} {value:.1e}" for name, value in differences.items()))  # for peers.md
    assert max(differences.values()) < 1e-5


def noise(size):
    return torch.randn(BATCH, 3, size, size, generator=torch.Generator().manual_seed(1))


def openai(peer, library, flags, made="model"):
    """The model, classifier or upsampler that a library makes of flags, its diffusion, and the value of every flag."""
    script_util = peer(library, f"{library.replace('-', '_')}.script_util")
    defaults = getattr(script_util, f"{'sr_model' if made == 'sr' else made}_and_diffusion_defaults")()
    parser = argparse.ArgumentParser()
    script_util.add_dict_to_argparser(parser, defaults)
    arguments = script_util.args_to_dict(parser.parse_args(flags.split()), defaults)
    create = "sr_create_model" if made == "sr" else f"create_{made}"
    return *getattr(script_util, f"{create}_and_diffusion")(**arguments), arguments


IMPROVED = "--image_size 32 --num_channels 128 --num_res_blocks 1"
GUIDED = "--image_size 16 --channel_mult 1,2 --num_channels 128 --num_res_blocks 1 --attention_resolutions 8"
ADM_WAY = f"{GUIDED} --num_head_channels 64 --resblock_updown True --use_new_attention_order True"
MODELS = {
    "improved, cosine": (
        "improved-diffusion",
        f"{IMPROVED} --learn_sigma True --diffusion_steps 4000 --noise_schedule cosine",
    ),
    "improved, linear": ("improved-diffusion", f"{IMPROVED} --class_cond True --diffusion_steps 500"),
    "improved, small variance": (
        "improved-diffusion",
        f"{IMPROVED} --sigma_small True --use_scale_shift_norm False --num_heads 1 --rescale_timesteps False",
    ),
    "improved, x": (
        "improved-diffusion",
        f"{IMPROVED} --predict_xstart True --learn_sigma True --attention_resolutions 32,4 --noise_schedule cosine",
    ),
    "guided, cosine": ("guided-diffusion", f"{ADM_WAY} --learn_sigma True --class_cond True --noise_schedule cosine"),
    "guided, 4 heads": (
        "guided-diffusion",
        f"{GUIDED} --resblock_updown True --learn_sigma True --num_heads 4 --noise_schedule linear",
    ),
    "guided, strided": (
        "guided-diffusion",
        f"{GUIDED} --predict_xstart True --use_scale_shift_norm False --diffusion_steps 250 --rescale_timesteps True "
        "--use_new_attention_order True",
    ),
    "guided, 250 unscaled": ("guided-diffusion", f"{GUIDED} --diffusion_steps 250 --noise_schedule cosine"),
}


@pytest.mark.parametrize("name", MODELS)
def test_openai(peer, name):
    library, flags = MODELS[name]
    model, diffusion, arguments = openai(peer, library, flags)
    randomize(model)
    model.eval()
    denoiser, _ = model_of(read_openai(model.state_dict(), flags))
    assert norms(denoiser.network) == norms(model)

    # Their index is our time less one.
    index = torch.tensor([0, 1, diffusion.num_timesteps // 2, diffusion.num_timesteps - 1])
    x_t, labels = noise(arguments["image_size"]), torch.tensor([0, 3, 500, 999])
    conditional = arguments["class_cond"]
    outputs = []
    model.register_forward_hook(lambda module, inputs, output: outputs.append(output[:, :3]))
    with torch.no_grad():
        theirs = diffusion.p_mean_variance(
            model, x_t, index, clip_denoised=False, model_kwargs={"y": labels} if conditional else {}
        )
        t = (index + 1).double()
        ours = denoiser(x_t, t, {"label": labels} if conditional else None)
        log_variance = denoiser.variance.log_variance(ours.variance, denoiser.schedule, t - 1, t)
    if log_variance.ndim == 1:
        log_variance = log_variance[:, None, None, None].expand_as(x_t)
    eps = outputs[0]
    if arguments["predict_xstart"]:
        eps = diffusion._predict_eps_from_xstart(x_t, index, theirs["pred_xstart"])
    assert_same(
        x=(ours.x, theirs["pred_xstart"]),
        eps=(ours.eps, eps),
        log_variance=(log_variance, theirs["log_variance"]),
    )


UPSAMPLERS = {
    "with labels": "--class_cond True --learn_sigma True --resblock_updown True --num_heads 4",
    "without": "--class_cond False --num_head_channels 64",
}


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_super_resolution(peer, name):
    """guided-diffusion's `SuperResModel` of 64 pixels from 16."""
    flags = "--large_size 64 --small_size 16 --num_channels 128 --num_res_blocks 1 --attention_resolutions 16,8"
    flags = f"{flags} {UPSAMPLERS[name]}"
    model, diffusion, arguments = openai(peer, "guided-diffusion", flags, "sr")
    randomize(model)
    model.eval()
    denoiser, _ = model_of(read_openai(model.state_dict(), flags))
    assert norms(denoiser.network) == norms(model)
    index = torch.tensor([0, 1, 500, 999])
    x_t, small, labels = noise(64), noise(16).clamp(-1, 1), torch.tensor([0, 3, 500, 999])
    given = {"y": labels} if arguments["class_cond"] else {}
    cond = {"label": labels} if arguments["class_cond"] else {}
    with torch.no_grad():
        theirs = diffusion.p_mean_variance(
            model, x_t, index, clip_denoised=False, model_kwargs={"low_res": small, **given}
        )
        ours = denoiser(x_t, (index + 1).double(), {"low_res": small, **cond})
    assert_same(x=(ours.x, theirs["pred_xstart"]))


@pytest.mark.parametrize("name", PUBLISHED_UPSAMPLERS)
def test_published_upsampler_shapes(peer, name):
    flags = PUBLISHED_UPSAMPLERS[name][0]
    with torch.device("meta"):
        model, _, _ = openai(peer, "guided-diffusion", flags, "sr")
    assert shapes(upsampler_state(flags)) == shapes(model.state_dict())


LOSSES = {
    "simple": ("improved-diffusion", f"{IMPROVED} --diffusion_steps 500"),
    "simple, x": ("improved-diffusion", f"{IMPROVED} --predict_xstart True"),
    "hybrid": ("improved-diffusion", f"{IMPROVED} --learn_sigma True --diffusion_steps 500"),
    "hybrid, a step's term in full": (
        "guided-diffusion",
        f"{ADM_WAY} --learn_sigma True --diffusion_steps 500 --rescale_timesteps True",
    ),
    "hybrid, 1000 steps": ("guided-diffusion", f"{ADM_WAY} --learn_sigma True --noise_schedule cosine"),
    "vlb": ("improved-diffusion", f"{IMPROVED} --learn_sigma True --use_kl True --diffusion_steps 500"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_openai(peer, name):
    """The same loss on the same noise, where training resumes."""
    library, flags = LOSSES[name]
    model, diffusion, arguments = openai(peer, library, flags)
    randomize(model)
    model.eval()
    denoiser, objective = model_of(read_openai(model.state_dict(), flags))
    x = noise(arguments["image_size"]).clamp(-1, 1)
    # Not at the ends, where in float32 their terms of the bound cancel.
    index = torch.linspace(0.2, 0.9, BATCH).mul(diffusion.num_timesteps).long()
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = diffusion.training_losses(model, x, index, noise=eps)["loss"]
        t = (index + 1).double()
        ours = objective.terms(denoiser, x, denoiser.process.mix(x, eps, t), None, t)["loss"]
    assert_same(loss=(ours[:, None], theirs[:, None]))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes(peer, name):
    """What the other tests take for OpenAI's networks has their names and shapes."""
    flags = PUBLISHED[name][0]
    library = "guided-diffusion" if "resblock_updown" in flags else "improved-diffusion"
    with torch.device("meta"):
        model, _, _ = openai(peer, library, flags)
    assert shapes(openai_state(flags)) == shapes(model.state_dict())


@pytest.mark.parametrize(
    "flags",
    [
        *(flags for flags, *_ in PUBLISHED_CLASSIFIERS.values()),
        *(f"--classifier_pool {pool}" for pool in ("adaptive", "spatial", "spatial_v2")),
        "--image_size 512 --classifier_resblock_updown False",
    ],
)
def test_classifier_shapes(peer, flags):
    with torch.device("meta"):
        classifier, _, _ = openai(peer, "guided-diffusion", flags, "classifier")
    assert shapes(openai_classifier_state(flags)) == shapes(classifier.state_dict())


SIMPLER = (
    "--classifier_resblock_updown False --classifier_use_scale_shift_norm False --classifier_attention_resolutions 8"
)
CLASSIFIERS = {
    "cosine": ("--image_size 64 --classifier_depth 1", "--noise_schedule cosine"),
    "linear, strided": (f"--image_size 64 --classifier_depth 1 {SIMPLER}", "--noise_schedule linear"),
}
GUIDED_64 = "--image_size 64 --channel_mult 1,1,1 --num_res_blocks 1 --resblock_updown True --learn_sigma True"
SCALES = {"score": 300.0, "mean": 3e5}
"""So that where there is noise, the classifier of random weights moves a prediction, or a mean, by about its size."""


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier(peer, name):
    flags = " ".join(CLASSIFIERS[name])
    theirs, _, _ = openai(peer, "guided-diffusion", flags, "classifier")
    randomize(theirs)
    theirs.eval()
    classifier, _ = filled(read_openai_classifier(theirs.state_dict(), flags))
    assert norms(classifier.network) == norms(theirs)
    x_t, index = noise(64), torch.tensor([0, 1, 500, 999])
    with torch.no_grad():
        expected = torch.log_softmax(theirs(x_t, index), dim=-1)
        assert_same(log_probability=(classifier(x_t, (index + 1).double()), expected))


@pytest.mark.parametrize("class_cond", [False, True])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_guidance(peer, name, class_cond):
    """Their condition_score and condition_mean, and ours."""
    flags, process = CLASSIFIERS[name]
    model_flags = f"{GUIDED_64} --class_cond {class_cond} {process}"
    classifier, _, _ = openai(peer, "guided-diffusion", f"{flags} {process}", "classifier")
    model, diffusion, _ = openai(peer, "guided-diffusion", model_flags)
    for seed, network in enumerate((classifier, model)):
        randomize(network, seed)
        network.eval()
    imported = read_openai_classifier(classifier.state_dict(), f"{model_flags} {flags}")
    loaded = filled(imported)[0], DataSpec.of_images(*imported[1:4])
    denoiser, _ = filled(read_openai(model.state_dict(), model_flags))
    x_t, labels = noise(64)[:2], torch.tensor([3, 999])

    def with_labels(x, t, y):
        return model(x, t, y if class_cond else None)

    def gradient(form):
        """As classifier_sample.py has it."""

        def scaled(x, t, y):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                log_probabilities = torch.log_softmax(classifier(x, t), dim=-1)
                return torch.autograd.grad(log_probabilities[range(len(x)), y].sum(), x)[0] * SCALES[form]

        return scaled

    def guided(form):
        guidance = ClassifierGuidance(lambda option, value: loaded, "imported", SCALES[form], form)
        guidance.check(denoiser.schedule, DataSpec.of_images(3, 64, 1000), class_cond)
        return Guided(denoiser, guidance)

    for step in (1, 500, 1000):
        index, t = torch.full((len(x_t),), step - 1), torch.tensor(float(step), dtype=torch.float64)
        given = x_t, index, {"y": labels}
        with torch.no_grad():
            plain = diffusion.p_mean_variance(with_labels, x_t, index, clip_denoised=False, model_kwargs=given[2])
            by_score = diffusion.condition_score(gradient("score"), plain, *given)
            by_mean = diffusion.condition_mean(gradient("mean"), plain, *given)
            ours = guided("score")(x_t, t, {"label": labels})
            walk = Predictor(guided("mean"), torch.stack([t, t - 1]), {"label": labels})
            mean = Ancestral(Trailing()).walk(walk, x_t, Given(torch.zeros_like(x_t)))
        pairs = {"x": (ours.x, by_score["pred_xstart"]), "mean": (mean, by_mean)}
        if step > 1:  # where there is hardly any noise, theirs is lost in the difference of x_t and x
            eps = diffusion._predict_eps_from_xstart(x_t, index, by_score["pred_xstart"])
            pairs["eps"] = ours.eps, eps
        assert_same(**pairs)


EDM = {
    "DDPM++": DDPMPP | {"channels": 32, "blocks": 2},
    "DDPM++, labels": DDPMPP | {"channels": 32, "blocks": 1, "classes": 10, "attends": (32, 8)},
    "NCSN++": NCSNPP | {"channels": 32, "blocks": 1, "multipliers": (1, 2, 2)},
    "NCSN++, labels": NCSNPP | {"channels": 32, "blocks": 1, "classes": 10},
    "ADM": ADM | {"size": 16, "channels": 64, "multipliers": (1, 2), "blocks": 2, "attends": (8,), "classes": 0},
    "ADM, labels": ADM | {"size": 16, "channels": 64, "multipliers": (1, 2, 3), "blocks": 1, "attends": (16, 8)},
}


def edm(peer, made):
    """EDM's own network in its preconditioning."""
    arguments = {"model_channels": made["channels"], "channel_mult": list(made["multipliers"])}
    arguments |= {"num_blocks": made["blocks"], "attn_resolutions": list(made.get("attends", (16,)))}
    if made["network"] == "SongUNet":
        arguments |= {"resample_filter": list(made.get("taps", (1, 1)))}
        if made.get("fourier"):
            arguments |= {"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2}
    return peer("edm", "training.networks").EDMPrecond(
        made["size"],
        3,
        label_dim=made.get("classes", 0),
        augment_dim=made.get("augment", 0),
        model_type=made["network"],
        **arguments,
    )


@pytest.mark.parametrize("name", EDM)
def test_edm(peer, name):
    made = EDM[name]
    theirs = edm(peer, made)
    randomize(theirs)
    theirs.eval()
    assert shapes(edm_state(**made)) == shapes(theirs.state_dict())
    denoiser, _ = model_of(read_edm(theirs.state_dict()))
    assert norms(denoiser.network) == norms(theirs)

    sigma = torch.tensor([0.002, 0.3, 2.0, 80.0], dtype=torch.float64)
    x_t, labels = noise(made["size"]) * (1 + sigma.float())[:, None, None, None], torch.tensor([0, 3, 7, 9])
    classes = made.get("classes", 0)
    given = one_hot(labels, classes).float() if classes else None
    with torch.no_grad():
        ours = denoiser(x_t, sigma, {"label": labels} if classes else None).x
        pairs = {"x": (ours, theirs(x_t, sigma, given))}
        if classes:
            pairs["no label"] = (denoiser(x_t, sigma).x, theirs(x_t, sigma, None))
            assert (ours - pairs["no label"][0]).abs().max() > 0.01
        if made.get("augment"):
            cond, told = {"label": labels} if classes else {}, torch.randn(4, made["augment"])
            augmented = denoiser(x_t, sigma, cond | {"augmentation": told}).x
            pairs["augmented"] = (augmented, theirs(x_t, sigma, given, augment_labels=told))
            assert (ours - augmented).abs().max() > 0.01
    assert_same(**pairs)
