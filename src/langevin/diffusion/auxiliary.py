"""Terms that are added to the loss of a denoiser."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, Self

from annotated_types import Gt
from torch import Tensor, nn

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.draws import BatchDraws
from langevin.diffusion.objective import Objective
from langevin.diffusion.process import Prediction
from langevin.digest import digest_of
from langevin.errors import UserError, refuse
from langevin.spec import DataSpec
from langevin.taps import require_seen, tapped


class Seen(NamedTuple):
    """What a call of a denoiser was about.

    Attributes:
        x: clean samples (B, ...), as models take them.
        x_t: the same with noise.
        t: their times (B,), float64 on the CPU.
        cond: what the network was conditioned on, after condition dropout; None: nothing.
        prediction: what the denoiser predicts of them.
        features: hidden features of its network, maps (B, C, h, w), by the names of the taps.
    """

    x: Tensor
    x_t: Tensor
    t: Tensor
    cond: Condition | None
    prediction: Prediction
    features: Mapping[str, Tensor]


class Teacher(NamedTuple):
    """A frozen model that was trained elsewhere, which an auxiliary compares with.

    Attributes:
        module: the model.
        weights: the digest of its weights.
        source: the field of the auxiliary that names it, and its value, such as "run=outputs/classifier".
        spec: of the only data that it takes; None where it takes other data too.
    """

    module: Any
    weights: str
    source: str
    spec: DataSpec | None = None

    @classmethod
    def of(cls, module: nn.Module, network: nn.Module, source: str, spec: DataSpec | None = None) -> Self:
        """A model, frozen here, whose weights are a network's in it."""
        return cls(module.requires_grad_(False).eval(), digest_of(network), source, spec)


class Auxiliary(nn.Module, ABC):
    """A term that is added to the loss of any objective that trains a denoiser, such as `Simple`.

    It sees the objective's own call of the denoiser, which is not called again. Weights of its own are trained and
    saved with the objective; sampling has no use for them.

    If it compares with a model that was trained elsewhere, `read` gives that model, and the constructor is handed it as
    `teacher`. A parameter `weights` is the digest of its weights, which the program fills in: so a run is another one
    with other weights. A parameter `run` names the run that is read, if it is one: wherever that lies.

    Args:
        weight: how much the term counts.

    Attributes:
        weight: the same.
        taps: the names of the network's taps whose features it wants, see `Network.taps`.
    """

    taps: Collection[str] = ()

    def __init__(self, weight: Annotated[float, Gt(0)]) -> None:
        super().__init__()
        self.weight = weight

    @classmethod
    def read(cls, options: Mapping[str, Any], loaders: Mapping[str, Callable[..., Any]]) -> Teacher | None:
        """Read what it compares with: once for a training, before data is touched. None: nothing.

        Args:
            options: its own fields in the config, which have the right types.
            loaders: by their names in `HANDED`, what loads other models, called with the field that names one and its
                value.

        Raises:
            UserError: when there is no such model.
        """
        return None

    @abstractmethod
    def forward(self, seen: Seen) -> Tensor:
        """The term (B,), of which the mean is minimised; logged before it is weighed."""

    def check(self, spec: DataSpec) -> None:
        """Check that it goes with what is diffused.

        Raises:
            OptionError: when it does not.
        """


class WithAuxiliaries(Objective[Denoiser]):
    """An objective with further terms: ``loss + sum of weight * term``, each sample counting the same in a term.

    The terms are logged by their names, in training and in validations. In a validation "loss" is the objective's own,
    which compares with that of a run without them. Their weights, which no model needs, have a role of their own, so
    that the norm of the model's gradient is that alone. A sampler of times looks at the objective's own loss, and its
    importance weights that loss alone.

    Args:
        objective: that of a denoiser, which it calls once.
        auxiliaries: the terms by their names.

    Raises:
        OptionError: when one has a name that PyTorch does not take.
    """

    def __init__(self, objective: Objective[Denoiser], auxiliaries: Mapping[str, Auxiliary]) -> None:
        super().__init__()
        self.objective = objective
        self.auxiliaries = named(auxiliaries)

    def forward(self, model: Denoiser, batch: Mapping[str, Tensor], draws: BatchDraws) -> dict[str, Tensor]:
        """See `Objective`."""
        calls: list[tuple[Tensor, Tensor, Condition | None, Prediction]] = []

        def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], prediction: Prediction) -> None:
            calls.append((*_given(*args, **kwargs), prediction))

        self.objective.step = self.step
        names = {name for auxiliary in self._all.values() for name in auxiliary.taps}
        hook = model.register_forward_hook(look, with_kwargs=True)
        try:
            with tapped(model.network, names) as features:
                terms = dict(self.objective(model, batch, draws))
        finally:
            hook.remove()
        if len(calls) != 1:
            what = (
                f"auxiliaries: go with an objective that calls the denoiser once, and {type(self.objective).__name__}"
            )
            raise UserError(f"{what} did so {len(calls)} times; allowed: such as objective=simple, or auxiliaries=[]")
        require_seen(features, names)
        seen, loss = Seen(batch["x"], *calls[0], features), terms["loss"]
        for name, auxiliary in self._all.items():
            if name in terms:
                text = f"is the name of a term of {type(self.objective).__name__}; call it otherwise"
                raise UserError(f"auxiliaries.{name}: {text}")
            term = auxiliary(seen)
            loss = loss + auxiliary.weight * term
            terms[name] = term.detach()
        return terms | {"loss": loss} if self.training else terms

    @property
    def _all(self) -> dict[str, Auxiliary]:
        return dict(self.auxiliaries.items())  # type: ignore[arg-type]

    def parameters_by_role(self, model: Denoiser) -> dict[str, Iterable[nn.Parameter]]:
        """See `Objective`: the objective's roles, and one of the weights of all auxiliaries, where there are any."""
        trained = [weight for weight in self.auxiliaries.parameters() if weight.requires_grad]
        return {**self.objective.parameters_by_role(model), **({"auxiliaries": trained} if trained else {})}

    def history(self) -> dict[str, Any]:
        """See `Objective`: the objective's."""
        return self.objective.history()

    def load_history(self, history: dict[str, Any]) -> None:
        """See `Objective`."""
        self.objective.load_history(history)


def named(parts: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Auxiliaries by their names, as a module.

    Raises:
        OptionError: for each name that PyTorch does not take for a part of a module.
    """
    held, wrong = nn.ModuleDict(), []
    for name, part in parts.items():
        try:
            held[name] = part
        except KeyError:
            text = "is a name that PyTorch does not take, or has for something else; call it otherwise"
            wrong.append((f"auxiliaries.{name}", text))
    refuse(wrong)
    return held


def _given(x_t: Tensor, t: Tensor, cond: Condition | None = None) -> tuple[Tensor, Tensor, Condition | None]:
    """The arguments of `Denoiser.forward`, however they were given."""
    return x_t, t, cond
