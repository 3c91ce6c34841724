from functools import partial

import pytest
import torch
from helpers.commands import TINY, composed
from network_helpers import randomize, tiny

from langevin.assembly.check import mistakes_in
from langevin.assembly.components import make_model
from langevin.conditions.class_label import ClassLabel
from langevin.conditions.condition import Condition, Context, Several
from langevin.conditions.vector import Vector
from langevin.errors import UserError
from langevin.spec import DataSpec

NAN = float("nan")
TIMES = torch.tensor([0.0, 1.0, 20.0, 999.0])


def images():
    return torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def vectors(seed=0):
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))


def vector(dropout=0.0, dim=16):
    condition = Vector(size=3, dropout=dropout, dim=dim)
    randomize(condition)
    return condition.eval()


def several(dropout=0.0, dim=16):
    label = ClassLabel(num_classes=10, dropout=dropout, dim=dim)
    return Several({"label": label, "vector": vector(dropout, dim)}).eval()


def conditional(condition):
    network = tiny(condition=condition)
    randomize(network)
    return network.eval()


def drawing(n):
    """What `drop` draws with."""
    return partial(torch.rand, n, generator=torch.Generator().manual_seed(0))


class Fixed(Condition):
    """Gives one and the same context, and reads nothing."""

    inputs, has_dropout = frozenset(), True

    def __init__(self, context):
        super().__init__()
        self.context, self.concat_channels = context, 0 if context.concat is None else context.concat.shape[1]

    def forward(self, cond, batch):
        return self.context

    def null(self, cond):
        return dict(cond)

    def drop(self, cond, draw):
        return dict(cond)


class TestVector:
    def test_is_two_linear_layers_with_silu_between(self):
        condition = vector().double()
        weights = dict(condition.named_parameters())
        hidden = vectors().double() @ weights["embed.0.weight"].T + weights["embed.0.bias"]
        expected = (hidden / (1 + (-hidden).exp())) @ weights["embed.2.weight"].T + weights["embed.2.bias"]
        torch.testing.assert_close(condition({"vector": vectors()}, 4).vector, expected, rtol=1e-6, atol=1e-6)

    def test_without_any_it_is_the_learned_vector(self):
        condition = vector()
        assert torch.equal(condition(None, 4).vector, condition.none.expand(4, -1))
        embedded = condition({"vector": vectors().index_fill(0, torch.tensor([1, 3]), NAN)}, 4).vector
        assert torch.equal(embedded[[1, 3]], condition.none.expand(2, -1))
        torch.testing.assert_close(embedded[[0, 2]], condition({"vector": vectors()}, 4).vector[[0, 2]])

    def test_a_single_nan_shows(self):
        given = vectors()
        given[2, 1] = NAN
        broken = vector()({"vector": given}, 4).vector.isnan().any(dim=1)
        assert broken.tolist() == [False, False, True, False]

    def test_gradients_are_finite_and_reach_both(self):
        condition = vector()
        condition({"vector": vectors().index_fill(0, torch.tensor([1]), NAN)}, 4).vector.sum().backward()
        for name, parameter in condition.named_parameters():
            assert 0 < parameter.grad.norm() < float("inf"), name
        assert (condition.none.grad == 1).all()  # of one image

    def test_is_dropped_as_often_as_asked(self):
        condition = vector(dropout=0.3)
        given = {"vector": vectors()[:1].expand(10_000, -1)}
        embedded = condition(condition.drop(given, drawing(10_000)), 10_000).vector
        absent = (embedded == condition.none).all(dim=1)
        assert (absent ^ torch.isclose(embedded, condition.embed(vectors()[:1])).all(dim=1)).all()
        assert abs(absent.float().mean().item() - 0.3) < 0.02  # more than four standard deviations
        assert not (condition(given, 10_000).vector == condition.none).all(dim=1).any()

    @pytest.mark.parametrize("shape", [(4, 2), (3, 3), (4,)])
    def test_another_length_is_refused(self, shape):
        with pytest.raises(UserError, match=r"vector: the shape \(.*\) does not fit: \(4, 3\)"):
            vector()({"vector": torch.zeros(shape)}, 4)


class TestSeveral:
    labels = torch.tensor([0, 9, -1, 3])

    def test_is_the_sum_of_its_parts(self):
        condition = several()
        label, features = condition.parts
        cond = {"label": self.labels, "vector": vectors()}
        expected = label({"label": self.labels}, 4).vector + features({"vector": vectors()}, 4).vector
        torch.testing.assert_close(condition(cond, 4).vector, expected)
        assert condition.inputs == {"label", "vector"}

    def test_a_part_that_is_absent_says_nothing(self):
        condition = several()
        nothing = {"label": torch.full((4,), -1), "vector": torch.full((4, 3), NAN)}
        label, features = {"label": self.labels}, {"vector": vectors()}
        for given, with_nothing in (
            (label, nothing | label),
            (features, nothing | features),
            (None, nothing),
            ({}, nothing),
        ):
            assert torch.equal(condition(given, 4).vector, condition(with_nothing, 4).vector)

    def test_parts_are_dropped_independently(self):
        condition = several(dropout=0.5)
        label, features = condition.parts
        cond = {"label": torch.ones(10_000, dtype=torch.int64), "vector": vectors()[:1].expand(10_000, -1)}
        embedded = condition(condition.drop(cond, drawing(10_000)), 10_000).vector
        labels = {True: label.table.weight[10], False: label.table.weight[1]}
        features = {True: features.none, False: features.embed(vectors()[0])}
        for first, second in ((True, True), (True, False), (False, True), (False, False)):
            share = (
                torch.isclose(embedded, labels[first] + features[second], atol=1e-5).all(dim=1).float().mean().item()
            )
            assert abs(share - 0.25) < 0.02

    def test_may_hold_itself(self):
        inner = several()
        condition = Several({"inner": inner})
        cond = {"label": self.labels}
        assert torch.equal(condition(cond, 4).vector, inner(cond, 4).vector)

    def test_tokens_follow_each_other_and_images_are_stacked(self):
        tokens, images = torch.randn(2, 4, 5, 16).unbind(), [torch.randn(4, channels, 8, 8) for channels in (1, 3)]
        condition = Several(
            {
                "tokens": Fixed(Context(tokens=tokens[0])),
                "all": Fixed(Context(vectors(), tokens[1][:, :2], images[0])),
                "vector": Fixed(Context(vector=vectors(1))),
                "concat": Fixed(Context(concat=images[1])),
            }
        )
        assert condition.concat_channels == 4
        vector, together, concat, _, mask = condition(None, 4)
        assert mask is None
        torch.testing.assert_close(vector, vectors() + vectors(1))
        assert torch.equal(together, torch.cat([tokens[0], tokens[1][:, :2]], dim=1))
        assert torch.equal(concat, torch.cat(images, dim=1))

    def test_masks_are_joined_and_tokens_without_one_all_count(self):
        tokens, mask = torch.randn(2, 4, 3, 16).unbind(), torch.rand(4, 3) < 0.5
        parts = [Context(tokens=tokens[0]), Context(vector=vectors()), Context(tokens=tokens[1], mask=mask)]
        joined = Several({str(index): Fixed(part) for index, part in enumerate(parts)})(None, 4)
        assert torch.equal(joined.tokens, torch.cat(tokens, dim=1))
        assert torch.equal(joined.mask, torch.cat([torch.ones(4, 3, dtype=torch.bool), mask], dim=1))

    def test_what_no_part_gives_is_absent(self):
        assert Several({"a": Fixed(Context()), "b": Fixed(Context())})(None, 4) == Context(None, None, None)

    def test_it_has_dropout_where_each_part_has(self):
        assert several(0.1).has_dropout
        assert not Several({"a": vector(0.1), "b": vector(0.0)}).has_dropout


@pytest.mark.parametrize("make", [partial(Vector, size=3, dropout=0.1), partial(several, 0.1)])
def test_null_condition_is_unconditional(make):
    network = conditional(make)
    cond = {"label": torch.tensor([0, 1, 2, 3]), "vector": vectors(), "other": torch.arange(4)}
    cond = {name: value for name, value in cond.items() if name in {*network.condition.inputs, "other"}}
    null = network.null_condition(cond)
    assert network.null_condition(None) is None
    assert {name: (value.shape, value.dtype) for name, value in null.items()} == {
        name: (value.shape, value.dtype) for name, value in cond.items()
    }
    assert torch.equal(null["other"], cond["other"])
    assert torch.equal(network(images(), TIMES, null), network(images(), TIMES))
    assert (network(images(), TIMES, cond) - network(images(), TIMES)).flatten(1).abs().amax(1).min() > 1e-3
    # As guidance asks: both in one batch.
    both = {name: torch.cat((value, null[name])) for name, value in cond.items()}
    outputs = network(images().repeat(2, 1, 1, 1), TIMES.repeat(2), both)
    expected = torch.cat((network(images(), TIMES, cond), network(images(), TIMES)))
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)


def test_a_part_left_out_stays_out_of_the_null_condition():
    null = several().null({"label": torch.tensor([3, 4])})
    assert null["label"].tolist() == [-1, -1]
    assert set(null) == {"label"}


def test_a_vector_reaches_its_own_sample_only():
    network = conditional(partial(Vector, size=3, dropout=0.0))
    other = vectors()
    other[2] += 1
    before, after = (network(images(), TIMES, {"vector": given}) for given in (vectors(), other))
    assert (before != after).flatten(1).any(dim=1).tolist() == [False, False, True, False]


def test_the_parts_of_a_config_are_built_with_the_facts_of_the_data():
    cfg, _ = composed("train", *TINY, "conditions=[class_label,vector]", "conditions.vector.size=3")
    network = make_model(cfg, DataSpec.of_images(channels=1, image_size=8, num_classes=10)).network
    label, features = network.condition.parts
    assert (label.num_classes, label.dropout, features.size) == (10, 0.1, 3)
    assert label.table.weight.shape == (11, len(features.none))


@pytest.mark.parametrize("options", ["vector", "class_label,vector"])
def test_what_the_data_does_not_supply_is_refused_before_it_is_read(options):
    ((path, message),) = mistakes_in(composed("train", f"conditions=[{options}]")[0])
    assert path == "conditions.vector"
    assert (
        message == "needs the vector of each sample, which this data does not supply; leave it out, or take other data"
    )


@pytest.mark.parametrize(
    ("overrides", "path", "words"),
    [
        (
            ["conditions=[class_label]", "conditions.class_label.dropout=1.1"],
            "conditions.class_label.dropout",
            ["1.1", "at most 1"],
        ),
        (
            ["conditions=[class_label]", "conditions.class_label.dropout=-0.1"],
            "conditions.class_label.dropout",
            ["-0.1", "at least 0"],
        ),
        (["conditions=[vector]", "conditions.vector.size=0"], "conditions.vector.size", ["0", "at least 1"]),
        (
            ["conditions=[class_label,vector]", "conditions.vector.size=0"],
            "conditions.vector.size",
            ["0", "at least 1"],
        ),
        (
            ["conditions=[class_label,vector]", "conditions.class_label.dropuot=0"],
            "conditions.class_label.dropuot",
            ["did you mean dropout"],
        ),
        (["conditions=[class_label,vector]", "conditions.vector=3"], "conditions.vector", ["3", "chosen by name"]),
    ],
)
def test_mistakes_are_reported_with_their_paths(overrides, path, words):
    found = dict(mistakes_in(composed("train", *overrides)[0]))
    assert path in found
    assert all(word in found[path] for word in words)
