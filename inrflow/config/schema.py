"""The configuration of a run: dataclasses that Hydra checks every override against. `configs/` holds the values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def limited(
    default: Any, *, least: float | None = None, above: float | None = None, most: float | None = None,
    below: float | None = None, choices: tuple[str, ...] = (),
) -> Any:
    """A setting with limits that types cannot express; `settings.check_limits` holds values to them. None is free."""
    limits = {"least": least, "above": above, "most": most, "below": below, "choices": choices}
    return field(default=default, metadata=limits)


@dataclass
class DataConfig:
    """Where the observations come from and how much of them is seen."""

    train: Any = None
    test: Any = None
    frames: int | None = limited(None, least=2)
    points: float = limited(1.0, above=0, most=1)
    same_points: bool = False
    symmetries: Any = "declared"
    equation: str = limited("auto", choices=("auto", "none", "incompressible_flow"))
    copies: int | None = limited(None, least=1)
    validation: float = limited(0.2, least=0, below=1)


@dataclass
class ObserveConfig:
    """What of a test trajectory is assimilated before the forecast; frames None: as many as forecasts need."""

    frames: int | None = limited(None, least=1)
    points: float | None = limited(None, above=0, most=1)
    noise: float = limited(0.0, least=0)
    context: str = limited("auto", choices=("auto", "parameters", "environment", "unknown"))


@dataclass
class DecoderConfig:
    """The decoder; None is chosen from the data."""

    name: str = limited("siren", choices=("siren", "filter_net"))
    modulation: list[str] = field(default_factory=lambda: ["output"])
    width: int = limited(128, least=1)
    depth: int | None = limited(None, least=1)
    w0: float | None = limited(None, above=0)
    wavenumbers: int = limited(2, least=1)
    harmonics: int | None = limited(None, least=0)
    code_size: int | None = limited(None, least=1)
    largest_code_size: int = limited(400, least=1)
    closure: bool = False
    periodic: bool = True
    filter_scale: float = limited(64.0, above=0)
    codes: str = limited("variance", choices=("variance", "harmonics"))


@dataclass
class EncodingConfig:
    """How codes are found: closed_form, gauss_newton, adam or gradient_steps."""

    method: str = "closed_form"
    iterations: int | None = limited(None, least=1)
    rate: float | None = limited(None, above=0)


@dataclass
class DynamicsConfig:
    """The vector field and its integration; None is chosen on validation."""

    equation: bool = True
    linear: bool = True
    products: int | None = limited(None, least=0)
    quadratic_rank: int = limited(0, least=0)
    width: int = limited(256, least=1)
    depth: int = limited(3, least=0)
    memory: int | None = limited(None, least=0)
    context: str = "auto"
    context_size: int | None = limited(None, least=1)
    forcing: bool | None = None
    forcing_harmonics: int = limited(2, least=1)
    start: str = limited("auto", choices=("auto", "least_squares", "zero"))
    method: str = limited("rk4", choices=("rk4", "dopri5"))
    step: float = limited(1.0, above=0)
    rtol: float = limited(1e-5, above=0)
    atol: float = limited(1e-6, above=0)
    adjoint: bool = False


@dataclass
class StepsConfig:
    """Steps of the stages and sizes of the solves; None is set from the time budget and written to config.yaml.

    mode_trajectories: to which the output modes are fitted; check_copies, copies: of every trajectory under symmetries,
    to check these and to train on; scattered: rounds in which motion and codes of scattered rows are found in turn,
    scattered_copies: of every trajectory in them; quadratic_rounds: further ones, along quadratic dynamics;
    equation: rounds of the search for a local equation.
    """

    decoder: int | None = limited(None, least=0)
    rollout: int | None = limited(None, least=0)
    data: int | None = limited(None, least=0)
    mode_trajectories: int | None = limited(None, least=0)
    check_copies: int | None = limited(None, least=0)
    copies: int | None = limited(None, least=0)
    scattered: int | None = limited(None, least=0)
    scattered_copies: int | None = limited(None, least=0)
    equation: int | None = limited(None, least=0)
    quadratic_rounds: int | None = limited(None, least=0)


@dataclass
class TrainingConfig:
    """Budget and optimisation."""

    minutes: float = limited(2.0, above=0)
    steps: StepsConfig = field(default_factory=StepsConfig)
    optimiser: str = limited("soap", choices=("soap", "adamw"))
    decoder_rate: float = limited(3e-3, above=0)
    rollout_rate: float = limited(2e-3, above=0)
    batch: int = limited(64, least=1)
    weight_decay: float = limited(0.0, least=0)
    joint: bool = False


@dataclass
class Config:
    """Everything `inrflow train` is told."""

    data: DataConfig = field(default_factory=DataConfig)
    observe: ObserveConfig = field(default_factory=ObserveConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = limited(0, least=0)
    device: str = "auto"
    output: str | None = None
    resume: str | None = None


@dataclass
class TestDataConfig:
    """The file to evaluate on; None: the one that the run was trained with."""

    test: str | None = None


@dataclass
class EvaluateObserveConfig:
    """What of a test trajectory is assimilated before the forecast."""

    frames: int = limited(1, least=1)
    points: float = limited(1.0, above=0, most=1)
    noise: float = limited(0.0, least=0)
    context: str = limited("auto", choices=("auto", "parameters", "environment", "unknown"))


@dataclass
class EvaluateConfig:
    """What `inrflow evaluate` is told. physics: which one of a run that knows several; None: found from the data."""

    run: str | None = None
    physics: str | None = None
    data: TestDataConfig = field(default_factory=TestDataConfig)
    observe: EvaluateObserveConfig = field(default_factory=EvaluateObserveConfig)
    device: str = "auto"
    output: str | None = None


@dataclass
class AdaptDataConfig:
    """Trajectories of the new system: the first `frames` of the first `trajectories` (None: all), at `points`."""

    train: str | None = None
    test: str | None = None
    frames: int | None = limited(None, least=2)
    points: float = limited(1.0, above=0, most=1)
    same_points: bool = False
    trajectories: int | None = limited(None, least=1)


@dataclass
class AdaptSettings:
    """How much is fitted, and from how many symmetry copies of each trajectory, the original among them.

    scratch_minutes: budget of training from scratch on the same frames, for comparison; 0: none.
    """

    strength: str = "context"
    copies: int | None = limited(None, least=1)
    scratch_minutes: float = limited(0.25, least=0)


@dataclass
class AdaptConfig:
    """What `inrflow adapt` is told."""

    run: str | None = None
    data: AdaptDataConfig = field(default_factory=AdaptDataConfig)
    adapt: AdaptSettings = field(default_factory=AdaptSettings)
    observe: EvaluateObserveConfig = field(default_factory=EvaluateObserveConfig)
    seed: int = limited(0, least=0)
    device: str = "auto"
    output: str | None = None


@dataclass
class QueryConfig:
    """What `inrflow query` is told. std, derivatives: columns beside the values; to: None writes into `output`."""

    run: str | None = None
    physics: str | None = None
    observations: str | None = None
    points: str | None = None
    to: str | None = None
    std: bool = False
    derivatives: bool = False
    overwrite: bool = False
    device: str = "auto"
    output: str | None = None


@dataclass
class PlotConfig:
    """What `inrflow plot` is told. channel None: all; times, points, resolution: places never seen, None the test's."""

    run: str | None = None
    physics: str | None = None
    data: TestDataConfig = field(default_factory=TestDataConfig)
    observe: ObserveConfig = field(default_factory=ObserveConfig)
    channel: str | None = None
    trajectory: int = limited(0, least=0)
    frames: int = limited(5, least=1)
    animation: bool = True
    times: list[float] | None = None
    points: str | None = None
    resolution: int | None = limited(None, least=2)
    device: str = "auto"
    output: str | None = None


@dataclass
class ConvertConfig:
    """What `inrflow convert` is told beside source and target; None is taken from the file."""

    channels: list[str] | None = None
    coordinates: list[str] | None = None
    time: str | None = None
    trajectory: str | None = None
    select: dict[str, int] = field(default_factory=dict)
    name: str | None = None
    units: list[str] | None = None
    time_units: str | None = None
    source: str | None = None
    licence: str | None = None
    period: list[float] | None = None
    geometry: str | None = None
    time_period: float | None = limited(None, above=0)
    symmetries: list[str] | None = None
    overwrite: bool = False


@dataclass
class GenerateConfig:
    """What `inrflow generate` is told; None is the protocol's own. points: "grid" or a number of random points."""

    pde: str | None = None
    trajectories: int = 64
    output: str | None = None
    protocol: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    environments: int | None = None
    frames: int | None = None
    dt: float | None = None
    grid: int | None = None
    dimensions: int | None = None
    windows: int | None = None
    burn_in: float | None = None
    period: float | None = None
    resolution: int | None = None
    points: Any = "grid"
    shared_points: bool = False
    noise: float = 0.0
    missing: float = 0.0
    time_jitter: float = 0.0
    tolerance: float = 1e-7
    seed: int = 0
    overwrite: bool = False
