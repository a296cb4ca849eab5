"""The configuration of a run: dataclasses that Hydra checks every override against. `configs/` holds the values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class DataConfig:
    """Where the observations come from and how much of them is seen."""

    train: Any = None
    test: Any = None
    frames: int | None = None
    points: float = 1.0
    same_points: bool = False
    symmetries: Any = "declared"
    equation: str = "auto"
    copies: int | None = None
    validation: float = 0.2


@dataclass
class ObserveConfig:
    """What of a test trajectory is assimilated before the forecast."""

    frames: int = 1
    points: float | None = None
    noise: float = 0.0
    context: str = "auto"


@dataclass
class DecoderConfig:
    """The decoder; None is chosen from the data."""

    name: str = "siren"
    modulation: list[str] = field(default_factory=lambda: ["output"])
    width: int = 128
    depth: int | None = None
    w0: float | None = None
    wavenumbers: int = 2
    harmonics: int | None = None
    code_size: int | None = None
    largest_code_size: int = 400
    closure: bool = False
    periodic: bool = True
    filter_scale: float = 64.0
    codes: str = "variance"


@dataclass
class EncodingConfig:
    """How codes are found: closed_form, gauss_newton, adam or gradient_steps."""

    method: str = "closed_form"
    iterations: int | None = None
    rate: float | None = None


@dataclass
class DynamicsConfig:
    """The vector field and its integration; None is chosen on validation."""

    linear: bool = True
    products: int | None = None
    quadratic_rank: int = 0
    width: int = 256
    depth: int = 3
    memory: int | None = None
    context: str = "auto"
    context_size: int | None = None
    forcing: bool | None = None
    forcing_harmonics: int = 2
    start: str = "auto"
    method: str = "rk4"
    step: float = 1.0
    rtol: float = 1e-5
    atol: float = 1e-6
    adjoint: bool = False


@dataclass
class StepsConfig:
    """Steps of the stages and sizes of the solves; None is set from the time budget and written to config.yaml.

    mode_trajectories: to which the output modes are fitted; check_copies, copies: of every trajectory under symmetries,
    to check these and to train on; scattered: rounds in which motion and codes of scattered rows are found in turn,
    scattered_copies: of every trajectory in them; quadratic_rounds: further ones, along quadratic dynamics.
    """

    decoder: int | None = None
    rollout: int | None = None
    data: int | None = None
    mode_trajectories: int | None = None
    check_copies: int | None = None
    copies: int | None = None
    scattered: int | None = None
    scattered_copies: int | None = None
    quadratic_rounds: int | None = None


@dataclass
class TrainingConfig:
    """Budget and optimisation."""

    minutes: float = 2.0
    steps: StepsConfig = field(default_factory=StepsConfig)
    optimiser: str = "soap"
    decoder_rate: float = 3e-3
    rollout_rate: float = 2e-3
    batch: int = 64
    weight_decay: float = 0.0
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
    seed: int = 0
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

    frames: int = 1
    points: float = 1.0
    noise: float = 0.0
    context: str = "auto"


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
    frames: int | None = None
    points: float = 1.0
    same_points: bool = False
    trajectories: int | None = None


@dataclass
class AdaptSettings:
    """How much is fitted, and from how many symmetry copies of each trajectory, the original among them.

    scratch_minutes: budget of training from scratch on the same frames, for comparison; 0: none.
    """

    strength: str = "context"
    copies: int | None = None
    scratch_minutes: float = 0.25


@dataclass
class AdaptConfig:
    """What `inrflow adapt` is told."""

    run: str | None = None
    data: AdaptDataConfig = field(default_factory=AdaptDataConfig)
    adapt: AdaptSettings = field(default_factory=AdaptSettings)
    observe: EvaluateObserveConfig = field(default_factory=EvaluateObserveConfig)
    seed: int = 0
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
    trajectory: int = 0
    frames: int = 5
    animation: bool = True
    times: list[float] | None = None
    points: str | None = None
    resolution: int | None = None
    device: str = "auto"
    output: str | None = None


@dataclass
class ConvertConfig:
    """What `inrflow convert` is told beside source and target; None is taken from the file."""

    channels: list[str] | None = None
    coordinates: list[str] | None = None
    trajectory: str | None = None
    select: dict[str, int] = field(default_factory=dict)
    name: str | None = None
    units: list[str] | None = None
    time_units: str | None = None
    source: str | None = None
    licence: str | None = None
    period: list[float] | None = None
    geometry: str | None = None
    time_period: float | None = None
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
