"""Images transformed at random in training, and the labels that tell a network how."""

import math

import pytest
import torch
from helpers.commands import composed
from network_helpers import randomize, tiny

from langevin.assembly.check import mistakes_in
from langevin.conditions.augmentation import COLUMN, Augmentation, Drawn
from langevin.conditions.class_label import ClassLabel
from langevin.conditions.condition import Several
from langevin.diffusion.draws import BatchDraws
from langevin.errors import OptionError, UserError

SIDE = 16
STRENGTHS = {"flip_x": 0.5, "flip_y": 0.5, "scale": 0.2, "rotation": 1.0, "anisotropy": 0.2, "translation": 0.125}


def augmentation(probability=0.12, side=SIDE, dim=8, **changes):
    return Augmentation(probability, **{**STRENGTHS, **changes}, image_size=side, dim=dim)


def images(n, side=SIDE, channels=3):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def transformed(condition, x, seed=7):
    made, columns = condition.transform(x, BatchDraws(seed, x, len(x)))
    return made, columns[COLUMN]


def test_each_kind_is_drawn_as_often_and_as_widely_as_documented():
    n = 20_000
    x = torch.zeros(n, 1, 1, 1)
    labels = augmentation(0.3, rotation=0.5).labels(augmentation(0.3, rotation=0.5).draw(BatchDraws(5, x, n)))
    mirrored, upended, scale, cos, sin, along, across, right, down = labels.unbind(1)
    shares = [(each != 0).float().mean().item() for each in (mirrored, upended, scale, sin, along, right)]
    assert shares == pytest.approx([0.5, 0.15, 0.3, 0.3, 0.3, 0.3], abs=0.015)
    for normal in (scale, right, down):
        assert normal[normal != 0].std().item() == pytest.approx(1, abs=0.03)
    turned = torch.atan2(sin, cos + 1)[sin != 0]
    assert turned.abs().max() <= math.pi / 2
    assert turned.std().item() == pytest.approx(math.pi / 2 / math.sqrt(3), abs=0.03)
    stretched = along[along != 0], across[along != 0]
    assert (stretched[1] == 0).float().mean().item() == pytest.approx(0.5, abs=0.02), "along x"
    assert torch.hypot(*stretched).square().mean().item() == pytest.approx(1, abs=0.05)
    pairs = torch.corrcoef(torch.stack([mirrored, upended, scale != 0, sin != 0, along != 0, right != 0]))
    assert (pairs - torch.eye(6)).abs().max() < 0.03, "independently"


def test_draws_belong_to_the_samples():
    """Whatever the process."""
    x, condition = images(8), augmentation(0.5)
    whole, labels = transformed(condition, x)
    for rank in range(2):
        made, columns = condition.transform(x[rank::2], BatchDraws(7, x[rank::2], 8, rank, 2))
        assert torch.equal(columns[COLUMN], labels[rank::2])
        torch.testing.assert_close(made, whole[rank::2], rtol=0, atol=1e-6)
    assert not torch.equal(labels, transformed(condition, x, seed=8)[1])


def test_images_that_nothing_happens_to_stay_as_they_are():
    x = images(16)
    made, labels = transformed(augmentation(0, flip_x=0), x)
    assert torch.equal(made, x)
    assert labels.shape == (16, 8)
    assert not labels.any()
    made, labels = transformed(augmentation(0), x)
    assert torch.equal(made, torch.where(labels[:, :1, None, None] > 0, x.flip(-1), x)), "to the bit"
    assert 0 < labels[:, 0].sum() < 16
    made, labels = transformed(augmentation(), x)
    still = ~labels.any(1)
    assert 0 < still.sum() < 16
    assert torch.equal(made[still], x[still])


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({}, (4, 0)),
        ({"mirrored": 1}, (-4, 0)),
        ({"upended": 1}, (4, 0)),
        ({"scale": 2.5}, (4 * 2**0.5, 0)),
        ({"angle": math.pi / 2}, (0, -4)),
        ({"angle": math.pi / 3, "upended": 1}, (2, -4 * math.sin(math.pi / 3))),
        ({"stretch": 2.5}, (4 * 2**0.5, 0)),
        ({"stretch": 2.5, "axis": math.pi / 2}, (4 / 2**0.5, 0)),
        ({"stretch": 2.5, "axis": math.pi / 4}, (4 * (2**0.5 + 2**-0.5) / 2, -4 * (2**0.5 - 2**-0.5) / 2)),
        ({"shift": (1.0, -0.5)}, (8, -2)),
    ],
)
def test_what_the_numbers_mean(given, place):
    """By where a spot to the right of the centre goes: x to the right, y downwards, angles counterclockwise."""
    y, x = torch.meshgrid(torch.arange(32.0) - 15.5, torch.arange(32.0) - 15.5, indexing="ij")
    spot = torch.exp(-((x - 4).square() + y.square()) / 2)[None, None]
    numbers = dict.fromkeys(Drawn._fields, 0.0) | {"shift": (0.0, 0.0)} | given
    moved = augmentation(side=32).applied(
        spot, Drawn(**{name: torch.tensor([value]) for name, value in numbers.items()})
    )
    found = [float((moved * each).sum() / moved.sum()) for each in (x, y)]
    assert found == pytest.approx(place, abs=0.1), "the wavelet is not quite symmetric"


def test_everything_happens_to_all_images_with_probability_1():
    assert transformed(augmentation(1, flip_x=1, flip_y=1), images(64))[1].any(0).all()
    labels = transformed(augmentation(1, flip_x=1, flip_y=1), images(64))[1]
    assert (labels[:, [0, 1, 2, 4, 5, 7, 8]] != 0).all()


@pytest.mark.parametrize(("kind", "number"), [("flip_x", 1), ("scale", 1), ("rotation", 2), ("translation", 2)])
def test_a_kind_that_is_left_out_has_no_label_and_changes_no_other(kind, number):
    x = images(64)
    less = augmentation(0.5, **{kind: 0})
    drawn, whole = (each.draw(BatchDraws(3, x, 64)) for each in (less, augmentation(0.5)))
    assert less.labels(drawn).shape == (64, 9 - number)
    changed = [name for name in Drawn._fields if not torch.equal(getattr(drawn, name), getattr(whole, name))]
    names = {"flip_x": "mirrored", "scale": "scale", "rotation": "angle", "translation": "shift"}
    assert changed == [names[kind]]
    assert not getattr(drawn, names[kind]).any()


def test_nothing_at_all_is_refused():
    with pytest.raises(OptionError, match="flip_x is 0, as are all others"):
        augmentation(**dict.fromkeys(STRENGTHS, 0))


@pytest.fixture
def networks():
    """A network of classes, and the same with augmentation, whose weights are those of a fresh one."""
    plain = tiny(condition=lambda dim: ClassLabel(10, 0.1, dim))
    randomize(plain)
    augmented = tiny(
        condition=lambda dim: Several(
            {"class_label": ClassLabel(10, 0.1, dim), "augmentation": augmentation(dim=dim, side=8)}
        )
    )
    weights = {name.replace("condition.", "condition.parts.0."): each for name, each in plain.state_dict().items()}
    lacking = augmented.load_state_dict(weights, strict=False)
    assert lacking == (["condition.parts.1.embed.weight"], [])
    return plain.eval(), augmented.eval()


TIMES = torch.tensor([0.0, 1.0, 20.0, 999.0])
LABELS = {"label": torch.tensor([0, 9, -1, 3])}


def test_labels_of_zero_are_the_plain_network_to_the_bit(networks):
    plain, augmented = networks
    x = images(4, 8, 2)
    told = {**LABELS, COLUMN: torch.randn(4, 9, generator=torch.Generator().manual_seed(1))}
    assert torch.equal(augmented(x, TIMES, told), plain(x, TIMES, LABELS)), "its weights start at zero"
    randomize(augmented.condition.parts[1])
    assert (augmented(x, TIMES, told) - plain(x, TIMES, LABELS)).flatten(1).abs().amax(1).min() > 1e-3
    for given in ({**LABELS, COLUMN: torch.zeros(4, 9)}, LABELS):
        assert torch.equal(augmented(x, TIMES, given), plain(x, TIMES, LABELS))
    assert torch.equal(augmented(x, TIMES, None), plain(x, TIMES, None))
    null = augmented.null_condition(LABELS)
    assert null.keys() == {"label"}
    assert torch.equal(augmented(x, TIMES, null), plain(x, TIMES, None)), "guidance compares with zero labels too"


def test_what_is_left_of_conditions_in_sampling(networks):
    plain, augmented = networks
    augmented.leave_out_transforms()
    assert isinstance(augmented.condition, ClassLabel)
    assert {name: each.shape for name, each in augmented.state_dict().items()} == {
        name: each.shape for name, each in plain.state_dict().items()
    }
    alone = tiny(condition=lambda dim: augmentation(dim=dim, side=8))
    alone.leave_out_transforms()
    assert alone.condition is None


def test_half_precision_takes_single_labels():
    condition = augmentation().bfloat16()
    for cond in ({COLUMN: torch.zeros(4, 9)}, {}, None):
        assert condition(cond, 4).vector.dtype == torch.bfloat16


def test_other_numbers_of_labels_are_refused():
    with pytest.raises(UserError, match=r"augmentation: the shape \(4, 8\) does not fit: \(4, 9\)"):
        augmentation()({COLUMN: torch.zeros(4, 8)}, 4)


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        (["data=toy", "model=mlp"], "conditions.augmentation", "needs the side of square images"),
        (["data.flip=true"], "data.flip", "is true, and conditions.augmentation mirrors images too"),
        (["conditions.augmentation.probability=1.2"], "conditions.augmentation.probability", "is 1.2; allowed: "),
        (["guidance=classifier_free"], "guidance", "also needs the model without labels"),
    ],
)
def test_contradictions_have_one_message(overrides, path, words):
    ((found, message),) = mistakes_in(composed("train", "conditions=[augmentation]", *overrides)[0])
    assert found == path
    assert message.startswith(words)


def test_hints_that_come_with_the_data_are_refused_and_others_are_computed_of_the_transformed():
    def found(kind, *given):
        return mistakes_in(
            composed("train", "conditions=[augmentation,hint]", f"conditions.hint.kind={kind}", *given)[0]
        )

    data = ("data=image_folder", "data.path=somewhere", "data.flip=false", "data.image_size=8")
    messages = {path: message for path, message in found("pairs", *data) if path.startswith("conditions")}
    assert messages == {
        "conditions.augmentation": "transforms images, but not the hints that come with them; allowed: hints that are "
        "computed of images"
    }
    assert found("edges") == []
    assert (
        mistakes_in(
            composed("train", "conditions=[augmentation]", "conditions.augmentation.flip_x=0", "data.flip=true")[0]
        )
        == []
    )


def test_equals_the_published_pipeline(peer, monkeypatch):
    """The same random numbers: equal labels, and equal images but for rounding."""
    module = peer("edm", "training.augment")
    seen = []
    for name in ("rand", "randn", "randint"):
        draw = getattr(torch, name)

        def recorded(*args, draw=draw, **options):
            seen.append(draw(*args, **options))
            return seen[-1]

        monkeypatch.setattr(module.torch, name, recorded)
    x = images(64, 32)
    seen.clear()
    kinds = ("xflip", "yflip", "scale", "rotate_frac", "aniso", "translate_frac")
    expected, labels = module.AugmentPipe(p=1, **dict.fromkeys(kinds, 1))(x)
    monkeypatch.undo()
    mirrored, _, upended, _, scale, _, turn, _, stretch, axis, _, is_along_x, shift, _ = seen
    condition = augmentation(side=32)
    drawn = Drawn(
        mirrored.flatten().float(),
        upended.flatten().float(),
        scale,
        math.pi * (2 * turn - 1),
        stretch,
        math.pi * (2 * axis - 1) * (is_along_x < 0.5),
        shift.T,
    )
    torch.testing.assert_close(condition.labels(drawn), labels, rtol=0, atol=1e-6)
    torch.testing.assert_close(condition.applied(x, drawn), expected, rtol=0, atol=1e-4)
