"""Terms beside an objective: what becomes of its loss, its weights and its networks."""

import pytest
import torch
from diffusion_helpers import normal
from torch import nn

from langevin.diffusion.auxiliary import Auxiliary, WithAuxiliaries
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.draws import BatchDraws
from langevin.diffusion.objective import Simple, VLBObjective
from langevin.diffusion.parameterization import Eps, V
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.time_sampler import LossAware, UniformTimes
from langevin.diffusion.uncertainty import Uncertainty
from langevin.diffusion.variance import FixedSmall
from langevin.diffusion.weighting import UnitEps
from langevin.errors import OptionError, UserError
from langevin.networks.network import Network
from langevin.taps import Tap


class TwoLayers(Network):
    """With a tap between the layers."""

    condition = None

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)

    @property
    def taps(self):
        return {"between": Tap(self.first, 3)}

    def forward(self, x, c_noise, cond=None):
        return self.last(torch.tanh(self.first(x)))


class Activity(Auxiliary):
    """The mean square of hidden features, times a trained number."""

    taps = ("between",)

    def __init__(self, weight):
        super().__init__(weight)
        self.factor = nn.Parameter(torch.tensor(1.5))

    def forward(self, seen):
        self.seen = seen
        return self.factor * seen.features["between"].square().flatten(1).mean(1)


class Distance(Auxiliary):
    """Of the prediction from the clean sample."""

    def forward(self, seen):
        return (seen.prediction.x - seen.x).abs().flatten(1).mean(1)


def of(objective, **auxiliaries):
    model = Denoiser(TwoLayers(), GaussianProcess(Linear(), Eps(), FixedSmall()))
    return WithAuxiliaries(objective, auxiliaries), model


def call(objective, model, seed=1):
    x = normal(4, 2, 6, 6, seed=2, dtype=torch.float32)
    draws = BatchDraws(seed, x, 4)
    return objective(model, {"x": x}, draws), draws, x


@pytest.mark.parametrize("kind", [Simple, Uncertainty])
def test_terms_are_added_by_their_weights_in_training_alone(kind):
    plain = kind(UniformTimes(), UnitEps())
    objective, model = of(plain, activity=Activity(0.25), distance=Distance(3.0))
    own, drawn, x = call(plain, model)
    found, draws, _ = call(objective, model)
    t, noise = draws.drawn["times"], draws.drawn["noise"]
    assert torch.equal(t, drawn.drawn["times"])
    assert torch.equal(noise, drawn.drawn["noise"])
    x_t = model.process.mix(x, noise, t).x_t
    activity = 1.5 * model.network.first(x_t).square().flatten(1).mean(1)
    distance = (model(x_t, t).x - x).abs().flatten(1).mean(1)
    torch.testing.assert_close(found["activity"], activity.detach())
    torch.testing.assert_close(found["distance"], distance.detach())
    torch.testing.assert_close(found["loss"], own["loss"] + 0.25 * activity + 3 * distance)
    seen = objective.auxiliaries["activity"].seen
    assert torch.equal(seen.x_t, x_t)
    assert torch.equal(seen.t, t)
    assert seen.cond is None
    for name in own.keys() - {"loss"}:
        assert torch.equal(found[name], own[name]), name
    validated, (compared, *_) = call(objective.eval(), model)[0], call(plain.eval(), model)
    assert torch.equal(validated["loss"], compared["loss"])
    assert torch.equal(validated["activity"], found["activity"])


def test_nothing_stays_in_the_model():
    objective, model = of(Simple(UniformTimes(), UnitEps()), activity=Activity(1.0))
    call(objective, model)
    assert not any(module._forward_hooks for module in model.modules())
    model.network.forward = None  # which cannot be called
    with pytest.raises(TypeError):
        call(objective, model)
    assert not any(module._forward_hooks for module in model.modules())


def test_weights_of_the_terms_are_a_role_of_their_own():
    plain = Uncertainty(UniformTimes(), UnitEps(), channels=8)
    objective, model = of(plain, activity=Activity(1.0))
    roles = {role: list(weights) for role, weights in objective.parameters_by_role(model).items()}
    assert list(roles) == ["model", "uncertainty", "auxiliaries"]
    assert roles["uncertainty"] == list(plain.parameters())
    assert roles["auxiliaries"] == [objective.auxiliaries["activity"].factor]
    assert list(of(plain, distance=Distance(1.0))[0].parameters_by_role(model)) == ["model", "uncertainty"]


def test_a_sampler_of_times_sees_the_losses_of_the_objective_alone():
    schedule = Linear(num_steps=4, rescale=False)
    histories = []
    for auxiliaries in ({}, {"activity": Activity(100.0)}):
        objective = WithAuxiliaries(VLBObjective(LossAware(history=2)), auxiliaries)
        model = Denoiser(TwoLayers(), GaussianProcess(schedule, V(), FixedSmall()))
        for seed in range(3):
            call(objective, model, seed)
        histories.append(objective.history())
        other = WithAuxiliaries(VLBObjective(LossAware(history=2)), {})
        other.load_history(objective.history())
        assert str(other.history()) == str(objective.history())
    assert str(histories[0]) == str(histories[1])
    assert str(histories[0]) != str(VLBObjective(LossAware(history=2)).history())


class Twice(Simple):
    def terms(self, model, x, noised, cond, t):
        model(noised.x_t, t)
        return super().terms(model, x, noised, cond, t)


def test_an_objective_that_calls_the_model_twice_is_refused():
    with pytest.raises(UserError, match=r"auxiliaries: go with an objective that calls .* once, and Twice did so 2"):
        call(*of(Twice(UniformTimes(), UnitEps()), distance=Distance(1.0)))


def test_a_name_that_the_objective_has_for_a_term_is_refused():
    with pytest.raises(UserError, match=r"auxiliaries\.mse: is the name of a term of Simple; call it otherwise"):
        call(*of(Simple(UniformTimes(), UnitEps()), mse=Distance(1.0)))


@pytest.mark.parametrize("name", ["train", "keys", "a.b", ""])
def test_a_name_that_pytorch_does_not_take_is_refused(name):
    with pytest.raises(OptionError) as raised:
        of(Simple(UniformTimes(), UnitEps()), **{name: Distance(1.0), "another": Distance(1.0)})
    text = "is a name that PyTorch does not take, or has for something else; call it otherwise"
    assert raised.value.found == ((f"auxiliaries.{name}", text),)


def test_a_module_that_is_not_called_is_refused():
    """As where the whole network is one compiled program."""
    objective, model = of(Simple(UniformTimes(), UnitEps()), activity=Activity(1.0))
    first = model.network.first
    model.network.forward = lambda x, c_noise, cond=None: model.network.last(first.forward(x))
    with pytest.raises(UserError, match=r"the tap between of this network was not called.*allowed: .*compile=false"):
        call(objective, model)


def test_the_step_is_handed_on():
    objective, model = of(Simple(UniformTimes(), UnitEps()))
    objective.step = 7
    call(objective, model)
    assert objective.objective.step == 7
