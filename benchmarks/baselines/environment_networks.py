"""Published ways to share one dynamics network between environments, as configurations of one interface.

A network ds/dt = skip(s) + perceptron(s) moves latent states; what differs between the methods is what an environment
owns. LEADS (Yin et al., NeurIPS 2021) adds a network of the environment's own, kept small by a penalty. CoDA
(Kirchmeyer et al., ICML 2022) moves all weights affinely in a context, theta_0 + W c. GEPS (Kassai Koupai et al.,
NeurIPS 2024) moves every layer by a matrix of low rank, W + A diag(c) B. `SharedNetwork` knows no environment at all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Layers = list[tuple[Tensor, Tensor]]
"""For E environments, weight (E, in, out) and bias (E, out) of the skip connection and then of every layer."""

Environment = dict[str, Tensor]
"""What environments own: tensors whose first axis counts the environments."""


@dataclass(frozen=True)
class NetworkShape:
    """state_size: n of the latent states; width, depth: of the perceptron's hidden layers."""

    state_size: int
    width: int = 256
    depth: int = 3

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Inputs and outputs of the skip connection and of every layer."""
        n = self.state_size
        return [(n, n), *zip([n, *[self.width] * self.depth], [*[self.width] * self.depth, n], strict=True)]


class BoundField(nn.Module):
    """The field ds/dt = f(t, s) of given environments: the sum of networks whose weights are fixed for a rollout.

    States are (E B, n), environment by environment, or (S, n) where there is one environment.
    """

    def __init__(self, networks: list[Layers]) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        environments = len(self.networks[0][0][0])
        grouped = state.unflatten(0, (environments, -1))
        return sum(rates(layers, grouped) for layers in self.networks).flatten(0, 1)  # type: ignore[union-attr]


def rates(layers: Layers, state: Tensor) -> Tensor:
    """Rates (E, B, n) of one network at states (E, B, n)."""
    (skip, skip_bias), *hidden, (last, last_bias) = layers
    features = state
    for weight, bias in hidden:
        features = nn.functional.silu(torch.baddbmm(bias[:, None], features, weight))
    return torch.baddbmm(last_bias[:, None], features, last) + torch.baddbmm(skip_bias[:, None], state, skip)


def initial_layers(shape: NetworkShape, environments: int = 1) -> Layers:
    """A network that moves nothing yet: hidden layers by torch's own rule, skip connection and last layer zero."""
    layers = []
    for index, (inputs, outputs) in enumerate(shape.layers):
        bound = 0.0 if index in (0, len(shape.layers) - 1) else 1 / math.sqrt(inputs)
        weight = torch.empty(environments, inputs, outputs).uniform_(-bound, bound)
        layers.append((weight, torch.empty(environments, outputs).uniform_(-bound, bound)))
    return layers


class EnvironmentNetwork(nn.Module, ABC):
    """A network shared by E environments; `environment` holds what each of them owns.

    Args:
        shape: of the network.
        environments: E.
    """

    def __init__(self, shape: NetworkShape, environments: int) -> None:
        super().__init__()
        self.shape = shape
        shared = initial_layers(shape)
        self.weights = nn.ParameterList(weight[0] for weight, _ in shared)
        self.biases = nn.ParameterList(bias[0] for _, bias in shared)
        self.build()
        self.environment = nn.ParameterDict(self.fresh(environments))

    def build(self) -> None:
        """Make what is shared beyond the network itself."""

    def shared(self, environments: int) -> Layers:
        """The network's own weights, repeated for E environments."""
        pairs = zip(self.weights, self.biases, strict=True)
        return [(w.expand(environments, -1, -1), b.expand(environments, -1)) for w, b in pairs]

    @abstractmethod
    def fresh(self, environments: int) -> Environment:
        """What environments own before anything is known of them."""

    @abstractmethod
    def networks(self, environment: Environment) -> list[Layers]:
        """The networks whose sum is the field of the given environments."""

    def start(self) -> Environment:
        """What one new environment owns when its adaptation begins."""
        return self.fresh(1)

    def mean(self) -> BoundField:
        """The field of the mean training environment, which needs no adaptation."""
        return self.bind({name: value.detach().mean(0, keepdim=True) for name, value in self.environment.items()})

    def penalty(self, environment: Environment, states: Tensor) -> Tensor:
        """The method's own penalty at states (E, B, n), added to the loss."""
        return states.new_zeros(())

    def bind(self, environment: Environment | nn.ParameterDict) -> BoundField:
        """The field of the given environments."""
        return BoundField(self.networks(dict(environment.items())))

    def of(self, index: int) -> BoundField:
        """The field of one training environment."""
        return self.bind({name: value[index : index + 1] for name, value in self.environment.items()})

    @property
    def adapted_numbers(self) -> int:
        """How many numbers one environment owns: those that an adaptation finds."""
        return sum(value[0].numel() for value in self.environment.values())

    def set_skip(self, matrix: Tensor, bias: Tensor) -> None:
        """Start the shared skip connection from a fitted linear field ds/dt = matrix s + bias."""
        with torch.no_grad():
            self.weights[0].copy_(matrix.T)
            self.biases[0].copy_(bias)


class SharedNetwork(EnvironmentNetwork):
    """One network for all environments: what the others must beat."""

    def fresh(self, environments: int) -> Environment:
        return {"nothing": torch.zeros(environments, 0)}

    def networks(self, environment: Environment) -> list[Layers]:
        return [self.shared(len(environment["nothing"]))]


class Leads(EnvironmentNetwork):
    """LEADS: the sum of a shared network f and of one network g_e for each environment, as small as the data allow.

    The penalty is that of the paper's section 4 for networks: weight times the sum over the environments of the mean of
    |g_e(s)|^2 / |s|^2 over states plus lipschitz times the squared product of the spectral norms of g_e's layers, which
    bounds its Lipschitz constant. The published runs set weight 1e-3 and lipschitz 1e-2 for Gray-Scott, 1e-5 and 1e-4
    for Navier-Stokes.
    """

    def __init__(self, shape: NetworkShape, environments: int, weight: float = 1e-3, lipschitz: float = 1e-2) -> None:
        self.weight, self.lipschitz = weight, lipschitz
        super().__init__(shape, environments)

    def fresh(self, environments: int) -> Environment:
        owned: Environment = {}
        for index, (weight, bias) in enumerate(initial_layers(self.shape, environments)):
            owned[f"weight_{index}"], owned[f"bias_{index}"] = weight, bias
        return owned

    def own(self, environment: Environment) -> Layers:
        """The environments' own networks."""
        return [(environment[f"weight_{i}"], environment[f"bias_{i}"]) for i in range(len(self.shape.layers))]

    def networks(self, environment: Environment) -> list[Layers]:
        own = self.own(environment)
        return [self.shared(len(own[0][0])), own]

    def mean(self) -> BoundField:
        """The shared network and the mean of the environments' own rates (the mean of their weights means nothing)."""
        own = [(w.detach(), b.detach()) for w, b in self.own(dict(self.environment.items()))]
        count = len(own[0][0])
        networks = [[(w[e : e + 1], b[e : e + 1]) for w, b in own] for e in range(count)]
        for layers in networks:
            for index in (0, -1):  # the rates are linear in these two
                layers[index] = (layers[index][0] / count, layers[index][1] / count)
        return BoundField([self.shared(1), *networks])

    def penalty(self, environment: Environment, states: Tensor) -> Tensor:
        own = self.own(environment)
        size = states.square().sum(-1).clamp(min=1e-12)
        magnitude = (rates(own, states).square().sum(-1) / size).mean(1).sum()
        norms = [spectral_norms(weight) for weight, _ in own]
        bound = norms[0] + torch.stack(norms[1:]).prod(0)
        return self.weight * (magnitude + self.lipschitz * bound.square().sum())


class Coda(EnvironmentNetwork):
    """CoDA: all weights theta = theta_0 + W c of a context c of size P for each environment; adaptation finds c alone.

    The penalty is that of the paper: row_weight times the sum of the norms of the rows of W (a weight that no context
    should move is not moved) plus context_weight times the sum of the squared contexts; the defaults are the published
    ones. Contexts start at zero.
    """

    def __init__(
        self,
        shape: NetworkShape,
        environments: int,
        context_size: int = 2,
        row_weight: float = 1e-6,
        context_weight: float = 1e-4,
    ) -> None:
        self.context_size, self.row_weight, self.context_weight = context_size, row_weight, context_weight
        super().__init__(shape, environments)

    def build(self) -> None:
        self.hyper_weights, self.hyper_biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in self.shape.layers:
            bound = 1 / math.sqrt(inputs)  # a context of order one moves weights by as much as they are
            self.hyper_weights.append(torch.empty(self.context_size, inputs, outputs).uniform_(-bound, bound))
            self.hyper_biases.append(torch.empty(self.context_size, outputs).uniform_(-bound, bound))

    def fresh(self, environments: int) -> Environment:
        return {"context": torch.zeros(environments, self.context_size)}

    def start(self) -> Environment:
        return {"context": self.environment["context"].detach().mean(0, keepdim=True)}

    def networks(self, environment: Environment) -> list[Layers]:
        context = environment["context"]
        moved = zip(self.shared(len(context)), self.hyper_weights, self.hyper_biases, strict=True)
        return [[(w + torch.tensordot(context, dw, 1), b + context @ db) for (w, b), dw, db in moved]]

    def penalty(self, environment: Environment, states: Tensor) -> Tensor:
        tiny = 1e-12  # the norm of a zero row has no gradient
        rows = sum((part.square().sum(0) + tiny).sqrt().sum() for part in (*self.hyper_weights, *self.hyper_biases))
        return self.row_weight * rows + self.context_weight * environment["context"].square().sum()


class Geps(EnvironmentNetwork):
    """GEPS: every layer W + A diag(c) B and bias b + c B' with one code c of size r for each environment.

    Adaptation finds c alone, from the mean of the training codes; codes start at zero.
    """

    def __init__(self, shape: NetworkShape, environments: int, context_size: int = 2) -> None:
        self.context_size = context_size
        super().__init__(shape, environments)

    def build(self) -> None:
        rank = self.context_size
        self.left, self.right, self.bias_of_code = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in self.shape.layers:
            bound = 1 / math.sqrt(inputs)
            self.left.append(torch.empty(inputs, rank).uniform_(-bound, bound))
            self.right.append(torch.empty(rank, outputs).uniform_(-1, 1))
            self.bias_of_code.append(torch.empty(rank, outputs).uniform_(-bound, bound))

    def fresh(self, environments: int) -> Environment:
        return {"context": torch.zeros(environments, self.context_size)}

    def start(self) -> Environment:
        return {"context": self.environment["context"].detach().mean(0, keepdim=True)}

    def networks(self, environment: Environment) -> list[Layers]:
        code = environment["context"]
        moved = zip(self.shared(len(code)), self.left, self.right, self.bias_of_code, strict=True)
        return [[(w + (A * code[:, None]) @ B, b + code @ B_bias) for (w, b), A, B, B_bias in moved]]


def spectral_norms(weight: Tensor, iterations: int = 20) -> Tensor:
    """Largest singular values (E,) of matrices (E, in, out) by power iteration, with their gradient."""
    with torch.no_grad():
        direction = torch.linspace(1, 2, weight.shape[2], dtype=weight.dtype).cos().expand(len(weight), -1)[..., None]
        for _ in range(iterations):
            image = weight @ direction
            direction = nn.functional.normalize(weight.transpose(1, 2) @ image, dim=1)
        image = nn.functional.normalize(weight @ direction, dim=1)
    return (image.transpose(1, 2) @ weight @ direction)[:, 0, 0]


METHODS: dict[str, type[EnvironmentNetwork]] = {
    "no context": SharedNetwork,
    "LEADS": Leads,
    "CoDA": Coda,
    "GEPS": Geps,
}
