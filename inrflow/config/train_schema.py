"""Configuration of `inrflow train`: all settings with default, meaning and limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inrflow.config.setting import setting


@dataclass
class ReadConfig:
    """How files that are not in the project's schema are read, as for `inrflow convert`; null: as the file says."""

    channels: list[str] | None = setting(None, "Variables or columns that are channels.")
    coordinates: list[str] | None = setting(None, "Variables or columns that are coordinates.")
    time: str | None = setting(None, "Variable or column of the times. null: recognised by its name or units.")
    trajectory: str | None = setting(None, "Dimension (NetCDF, Zarr) along which trajectories are stacked.")
    select: dict[str, int] = setting({}, "select.DIMENSION=INDEX: one entry of a further dimension (NetCDF, Zarr).")
    stations: str | None = setting(None, "Table with names and places of stations, for tables that have a column for "
                                   "each station, or a column of their names.")
    name: str | None = setting(None, "Name of the system.")
    units: list[str] | None = setting(None, "Units of the channels.")
    time_units: str | None = setting(None, "Units of t.")
    source: str | None = setting(None, "Where the data come from.")
    licence: str | None = setting(None, "Licence of the data.")
    period: list[float] | None = setting(None, "Period of each coordinate, 0 where there is none.")
    geometry: str | None = setting(None, "sphere, or null.")
    time_period: float | None = setting(None, "Period of an external forcing, in units of t.", above=0)
    symmetries: list[str] | None = setting(None, "Names of symmetries of the system.")


@dataclass
class DataConfig:
    """The observations, and how much of them is used."""

    train: Any = setting(
        None, "Data file of any readable format, a pattern (frames_*.nc) for files of one run, or a list of files of "
        "several physics, [a.h5,b.h5]. null: the embedded wave data.", text=True
    )
    test: Any = setting(None, "File to evaluate on. null: the frames after data.frames, if there are any.", text=True)
    read: ReadConfig = field(default_factory=ReadConfig)
    frames: int | None = setting(None, "Train on the first frames of every trajectory. null: all.", least=2)
    points: float = setting(1.0, "Fraction of the points observed: a seeded random subset of each trajectory.",
                            above=0, most=1)
    same_points: bool = setting(False, "Observe the same subset of points in all trajectories.")
    symmetries: Any = setting("declared", "Symmetries to use: declared (those of the file), none, or a list of names "
                              "(translation, reflection, exchange, rotation_z).", text=True)
    completion: str = setting(
        "auto", "Simulation that estimates values at unobserved nodes before training. incompressible_flow: for "
        "channels u, v, p on a triangle mesh without body force; its viscosity is fitted. auto: where the data fit, "
        "and kept only if it beats interpolation.", choices=("auto", "none", "incompressible_flow"))
    copies: int | None = setting(None, "Augmentation: total copies of each trajectory, counting the original, under "
                                 "random symmetries. null: chosen from the number of trajectories.", least=1)
    faults: str = setting("auto", "Values far from all of their neighbours in space and time. auto: left out, in "
                          "series replaced by medians, and told; kept: taken as they are, as true single peaks.",
                          choices=("auto", "kept"))
    validation: float = setting(0.2, "Share of the trajectories held out to choose between candidate models.",
                                least=0, below=1)


@dataclass
class ObserveConfig:
    """What of a test trajectory is assimilated before the forecast."""

    frames: int | None = setting(None, "Number of first frames observed. null: as many as forecasts need.", least=1)
    points: float | None = setting(None, "Fraction of the points observed. null: that of training.", above=0, most=1)
    noise: float = setting(0.0, "Standard deviation of added noise, in units of each channel's standard deviation.",
                           least=0)
    context: str = setting(
        "auto", "Contexts of the test trajectories: from their parameters, those of the training environment with the "
        "same id, unknown (estimated from the observations), or auto: the first of these that applies.",
        choices=("auto", "parameters", "environment", "unknown"))


@dataclass
class DecoderConfig:
    """The decoder u = D(x; z)."""

    name: str = setting("siren", "Architecture of a trained decoder: siren, filter_net or another that is registered.")
    modulation: list[str] = setting(["output"], "What a code sets in the SIREN: output (weights of the last layer, so "
                                    "that codes are solved), and of every layer shift and scale.")
    width: int = setting(128, "Hidden width.", least=1)
    depth: int | None = setting(None, "Hidden layers. null: 2 behind a periodic embedding, else 6.", least=1)
    w0: float | None = setting(None, "Frequency factor of the first layer. null: 2 behind a periodic embedding, else "
                               "3.", above=0)
    periodic: bool = setting(True, "Embed periodic coordinates by their harmonics; false: raw coordinates.")
    wavenumbers: int = setting(2, "Harmonics of each periodic coordinate in the embedding.", least=1)
    harmonics: int | None = setting(None, "Largest wavenumber of the domain's harmonics that enter the output layer. "
                                    "null: as many as the points support, at most 200.", least=0)
    code_size: int | None = setting(None, "Size of the code. null: chosen by held-out forecasts.", least=1)
    largest_code_size: int = setting(400, "Largest size considered.", least=1)
    filter_scale: float = setting(64.0, "Scale of the initial frequencies of a filter_net.", above=0)


@dataclass
class EncodingConfig:
    """From observations to codes."""

    method: str = setting("closed_form", "closed_form (a linear solve, for decoders affine in the code), gauss_newton, "
                          "adam, gradient_steps (a few meta-learned ones), or another registered one.")
    iterations: int | None = setting(None, "Iterations. null: the method's own, or chosen on validation data.", least=1)
    rate: float | None = setting(None, "Step size of adam and gradient_steps. null: the method's own.", above=0)


@dataclass
class DynamicsConfig:
    """The vector field dz/dt = f(t, z; c) and its integration."""

    linear: bool = setting(True, "Fit a linear term by least squares; false: a network alone.")
    equation: bool = setting(True, "Look for a law of a few terms, used only if it lowers the error of held-out "
                             "forecasts.")
    network: str = setting("auto", "Pointwise network of sines in a law, its output layer solved: sought where no law "
                           "of a few terms explains the data (auto), always (on), or never (off).",
                           choices=("auto", "on", "off"))
    width: int = setting(256, "Hidden width of the network.", least=1)
    depth: int = setting(3, "Hidden layers of a network that is the vector field.", least=0)
    memory: int | None = setting(
        None, "Hidden dimensions (a delay embedding) for systems whose frame does not determine their state; forecasts "
        "then need several observed frames. null: tried where forecasts without them miss much more than the decoder.",
        least=0)
    context: str = setting(
        "auto", "Per-system constants (such as viscosity) as an input of the model: none; environment (one per "
        "environment id), trajectory (one each), parameters (those of the file); auto: parameters where some vary, "
        "else environment where there are several.",
        choices=("auto", "none", "environment", "trajectory", "parameters"))
    context_size: int | None = setting(None, "Size of the context. null: the number of parameters that vary, else one "
                                       "or two.", least=1)
    forcing: bool | None = setting(None, "Periodic forcing of the data's time_period. null: where one is declared.")
    forcing_harmonics: int = setting(2, "Harmonics of the periodic forcing.", least=1)
    method: str = setting("rk4", "Integrator: fixed steps, or adaptive ones.", choices=("rk4", "dopri5"))
    step: float = setting(1.0, "Largest step of rk4 in units of the training data's time step; halved where the "
                          "dynamics need it.", above=0)
    rtol: float = setting(1e-5, "Relative tolerance of dopri5.", above=0)
    atol: float = setting(1e-6, "Absolute tolerance of dopri5.", above=0)
    adjoint: bool = setting(False, "Train through the adjoint equation: less memory, more time.")


@dataclass
class StepsConfig:
    """Decisions that are otherwise made under the time budget and recorded with the run; null: made then.

    Given the recorded ones, a run repeats.
    """

    decoder: int | None = setting(None, "Steps of decoder training.", least=0)
    rollout: int | None = setting(None, "Steps of training on rollouts.", least=0)
    mode_trajectories: int | None = setting(None, "Trajectories to which POD modes are fitted.", least=0)
    check_copies: int | None = setting(None, "Copies of each trajectory that test the declared symmetries.", least=0)
    copies: int | None = setting(None, "Copies of each trajectory that dynamics are fitted to.", least=0)
    law: int | None = setting(None, "Effort of the search for a law, in seconds of a usual core.", least=0)
    first_network: int | None = setting(None, "The same for a network before laws are refined.", least=0)
    network: int | None = setting(None, "Effort of the search for a network in a law, in seconds of a usual core.",
                                  least=0)
    flight: int | None = setting(None, "Effort of a law's flow over one frame, in milliseconds of a usual core.",
                                 least=0)
    calibration: int | None = setting(None, "Windows of few points calibrate intervals, too: 1, else 0.", least=0)
    contexts: int | None = setting(None, "Held-out trajectories whose contexts say how uncertain solved ones are.",
                                   least=0)
    residual_field: int | None = setting(None, "Search for a residual field: 2, of simple forms 1, none 0.", least=0)
    residual_variants: int | None = setting(None, "Fits of residual fields that are compared.", least=0)


@dataclass
class TrainingConfig:
    """Budget and optimisation."""

    minutes: float = setting(2.0, "Wall-clock budget of training, to which schedules and searches adapt.", above=0)
    steps: StepsConfig = field(default_factory=StepsConfig)
    residual_field: str = setting("auto", "Gaussian process in space and time beside the codes, taken where it "
                                  "predicts held-out places better: looked for where no law explains the data (auto), "
                                  "always (on), or never (off).", choices=("auto", "on", "off"))
    optimiser: str = setting("soap", "Optimiser of networks.", choices=("soap", "adamw", "adam"))
    decoder_rate: float | None = setting(None, "Learning rate of the decoder. null: 3e-3, a third of it for SIREN "
                                         "trunks off periodic domains.", above=0)
    rollout_rate: float = setting(2e-3, "Learning rate of training on rollouts.", above=0)
    batch: int = setting(64, "Trajectories or frames of a training step.", least=1)
    weight_decay: float = setting(0.0, "Weight decay.", least=0)
    joint: bool = setting(False, "Train codes, decoder and vector field in the same steps; needs encoding.method=adam.")


@dataclass
class Config:
    """Train a surrogate. The defaults are the best known settings; a null is chosen from the data."""

    recipe: str = setting(
        "auto", "How candidate models are made. auto: all closed-form recipes that apply, the best by held-out "
        "forecasts is kept. One by name: law (on the harmonics of any domain), reduced_order (POD), "
        "neural (SIREN and a network as vector field, trained by descent), coral, dino, or another registered one.")
    data: DataConfig = field(default_factory=DataConfig)
    observe: ObserveConfig = field(default_factory=ObserveConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = setting(0, "Seed of all random choices.", least=0)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    output: str | None = setting(None, "Run directory. null: outputs/train/<date-time>.")
    resume: str | None = setting(None, "Run directory of a training that was stopped, to be continued.")
    continues: str | None = setting(None, "Run directory of a model that is fitted further to data.train, which hold "
                                    "those that it was trained on, where that will do: what inrflow update does.")
