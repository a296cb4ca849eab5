"""Configuration of `inrflow train`: all settings with default, meaning and limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inrflow.config.setting import setting


@dataclass
class ReadConfig:
    """How other files than those of the project's schema are read, as by `inrflow convert`. null: as in the file."""

    channels: list[str] | None = setting(None, "Variables or columns of the channels (the observed quantities).")
    coordinates: list[str] | None = setting(None, "Variables or columns of the coordinates; with geometry=sphere "
                                            "longitude and latitude in degrees, whatever they are called.")
    time: str | None = setting(None, "Variable or column of the times. null: recognised by its name or units.")
    trajectory: str | None = setting(None, "Dimension (NetCDF, Zarr) along which trajectories are stacked.")
    select: dict[str, int] = setting({}, "select.DIMENSION=INDEX: one entry of a further dimension (NetCDF, Zarr).")
    stations: str | None = setting(None, "Table with names and places of stations, if the data have a column for each "
                                   "station or of their names.")
    name: str | None = setting(None, "Name of the system.")
    units: list[str] | None = setting(None, "Units of the channels.")
    time_units: str | None = setting(None, "Units of t.")
    source: str | None = setting(None, "Where the data come from.")
    licence: str | None = setting(None, "Licence of the data.")
    period: list[float] | None = setting(None, "Period of each coordinate; 0 for one that is not periodic.")
    geometry: str | None = setting(None, "sphere, if points lie on a sphere; else null.")
    time_period: float | None = setting(None, "Period of an external forcing, in units of t.", above=0)
    symmetries: list[str] | None = setting(None, "Symmetries of the system: translation, reflection, exchange or "
                                           "rotation_z.")


@dataclass
class DataConfig:
    """Training and test data, and which part of them is used."""

    train: Any = setting(None, "Data file of any readable format, a pattern (frames_*.nc) for files of one run, or a "
                         "list of files of several physics, [a.h5,b.h5]. null: the embedded wave data.", text=True)
    test: Any = setting(None, "File to evaluate on. null: frames of data.train after data.frames, if any.", text=True)
    read: ReadConfig = field(default_factory=ReadConfig)
    frames: int | None = setting(None, "Number of first frames of every trajectory to train on. null: all.", least=2)
    points: float = setting(1.0, "Fraction of the points that are observed: a random subset of each trajectory, set by "
                            "seed.", above=0, most=1)
    same_points: bool = setting(False, "Observe the same subset of points in all trajectories.")
    symmetries: Any = setting("declared", "Symmetries to use: declared (those of the file), none, or a list of names "
                              "(translation, reflection, exchange, rotation_z).", text=True)
    completion: str = setting(
        "auto", "Simulation that estimates values at unobserved nodes before training. incompressible_flow: for "
        "channels u, v, p on a triangle mesh without body force; the viscosity is fitted. auto: tried on such data, "
        "and used only if it is more accurate than interpolation.", choices=("auto", "none", "incompressible_flow"))
    copies: int | None = setting(None, "Augmentation: copies of each trajectory under random symmetries, including the "
                                 "original. null: chosen from the number of trajectories.", least=1)
    faults: str = setting("auto", "Values far from all of their neighbours in space and time. auto: left out (in "
                          "series replaced by medians), with a warning; kept: used as they are.",
                          choices=("auto", "kept"))
    validation: float = setting(0.2, "Share of the trajectories held out to choose between candidate models.",
                                least=0, below=1)


@dataclass
class ObserveConfig:
    """The part of a test trajectory that is assimilated before the forecast."""

    frames: int | None = setting(None, "Number of first frames observed. null: as many as forecasts need.", least=1)
    points: float | None = setting(None, "Fraction of points observed. null: data.points of training.", above=0, most=1)
    noise: float = setting(0.0, "Standard deviation of added noise, in units of each channel's standard deviation.",
                           least=0)
    context: str = setting(
        "auto", "How contexts of the test trajectories are known: from their parameters; as those of the training "
        "environment with the same id; unknown, to be estimated from the observations; auto: the first that applies.",
        choices=("auto", "parameters", "environment", "unknown"))


@dataclass
class DecoderConfig:
    """The decoder u = D(x; z)."""

    name: str = setting("siren", "Architecture of a trained decoder: siren, filter_net or another registered one.")
    modulation: list[str] = setting(["output"], "What a code modulates in the SIREN: output (the last layer, so that "
                                    "codes are a linear solve), shift and scale of all layers.")
    width: int = setting(128, "Hidden width.", least=1)
    depth: int | None = setting(None, "Number of hidden layers. null: 2 after a periodic embedding, else 6.", least=1)
    w0: float | None = setting(None, "Frequency factor of the first layer. null: 2 after a periodic embedding, else "
                               "3.", above=0)
    periodic: bool = setting(True, "Embed periodic coordinates by their harmonics; false: raw coordinates.")
    wavenumbers: int = setting(2, "Number of harmonics of each periodic coordinate in the embedding.", least=1)
    harmonics: int | None = setting(None, "Largest wavenumber of the domain's harmonics in the output layer. null: the "
                                    "largest that the points resolve, at most 200.", least=0)
    code_size: int | None = setting(None, "Size of the code. null: chosen by held-out forecasts.", least=1)
    largest_code_size: int = setting(400, "Largest code size that is considered.", least=1)
    filter_scale: float = setting(64.0, "Scale of the initial frequencies of a filter_net.", above=0)


@dataclass
class EncodingConfig:
    """Estimation of codes from observations."""

    method: str = setting("closed_form", "closed_form (a linear solve, for decoders affine in the code), gauss_newton, "
                          "adam, gradient_steps (few, meta-learned), or another registered method.")
    iterations: int | None = setting(None, "Iterations. null: the method's own, or chosen on validation data.", least=1)
    rate: float | None = setting(None, "Step size of adam and gradient_steps. null: the method's own.", above=0)


@dataclass
class DynamicsConfig:
    """The vector field dz/dt = f(t, z; c) and its integration."""

    linear: bool = setting(True, "Fit a linear term by least squares; false: only a network.")
    equation: bool = setting(True, "Search for a law (a PDE of a few terms), used only if it lowers the error of "
                             "held-out forecasts.")
    network: str = setting("auto", "Search for a law with a pointwise network of sines: if no law of a few terms "
                           "explains the data (auto), always (on), or never (off).", choices=("auto", "on", "off"))
    width: int = setting(256, "Hidden width of the network.", least=1)
    depth: int = setting(3, "Number of hidden layers of a network as vector field.", least=0)
    memory: int | None = setting(None, "Dimensions of a delay embedding, for systems whose state a single frame does "
                                 "not determine; forecasts then need several observed frames. null: tried if errors of "
                                 "forecasts without are far above that of the decoder.", least=0)
    context: str = setting("auto", "Constants of each system (such as viscosity) as an input of the model: none; "
                           "environment (fitted for each environment id), trajectory (fitted for each one), parameters "
                           "(read from the file); auto: parameters if some vary, else environment if several.",
                           choices=("auto", "none", "environment", "trajectory", "parameters"))
    context_size: int | None = setting(None, "Number of constants. null: the number of parameters that vary, else one "
                                       "or two.", least=1)
    forcing: bool | None = setting(None, "Periodic forcing with the data's time_period. null: if one is declared.")
    forcing_harmonics: int = setting(2, "Number of harmonics of the periodic forcing.", least=1)
    method: str = setting("rk4", "Integrator: fixed (rk4) or adaptive steps (dopri5).", choices=("rk4", "dopri5"))
    step: float = setting(1.0, "Largest step of rk4 in units of the training data's time step; halved if the "
                          "dynamics need it.", above=0)
    rtol: float = setting(1e-5, "Relative tolerance of dopri5.", above=0)
    atol: float = setting(1e-6, "Absolute tolerance of dopri5.", above=0)
    adjoint: bool = setting(False, "Train through the adjoint equation: less memory, more time.")


@dataclass
class StepsConfig:
    """Decisions made within the time budget. null: made during training and recorded in decisions.json.

    With the recorded values, a run repeats.
    """

    decoder: int | None = setting(None, "Number of steps of decoder training.", least=0)
    rollout: int | None = setting(None, "Number of steps of training on rollouts.", least=0)
    mode_trajectories: int | None = setting(None, "Number of trajectories to which POD modes are fitted.", least=0)
    check_copies: int | None = setting(None, "Copies of each trajectory that test the declared symmetries.", least=0)
    copies: int | None = setting(None, "Copies of each trajectory to which dynamics are fitted.", least=0)
    law: int | None = setting(None, "Effort of the search for a law, in seconds of a typical core.", least=0)
    first_network: int | None = setting(None, "Effort of a first network, before laws are refined; likewise.", least=0)
    network: int | None = setting(None, "Effort of the search for a law with a network, in seconds of a typical core.",
                                  least=0)
    flight: int | None = setting(None, "Effort of a forecast of one frame, in milliseconds of a typical core.", least=0)
    calibration: int | None = setting(None, "Number of sparsely observed windows that calibrate intervals.", least=0)
    contexts: int | None = setting(None, "Number of held-out trajectories that calibrate estimated contexts.", least=0)
    residual_field: int | None = setting(None, "Search for a residual field: 0 none, 1 simple, 2 all forms.", least=0)
    residual_variants: int | None = setting(None, "Number of residual fields that are fitted and compared.", least=0)


@dataclass
class TrainingConfig:
    """Time budget and optimisation."""

    minutes: float = setting(2.0, "Wall-clock budget of training, to which all schedules and searches adapt.", above=0)
    steps: StepsConfig = field(default_factory=StepsConfig)
    residual_field: str = setting("auto", "Search for a Gaussian process of the residual in space and time, used if it "
                                  "lowers errors at held-out places: if no law explains the data (auto), always (on), "
                                  "or never (off).", choices=("auto", "on", "off"))
    optimiser: str = setting("soap", "Optimiser of networks.", choices=("soap", "adamw", "adam"))
    decoder_rate: float | None = setting(None, "Learning rate of the decoder. null: 3e-3, and 1e-3 for SIREN trunks on "
                                         "domains that are not periodic.", above=0)
    rollout_rate: float = setting(2e-3, "Learning rate of training on rollouts.", above=0)
    batch: int = setting(64, "Number of trajectories or frames in a training step.", least=1)
    weight_decay: float = setting(0.0, "Weight decay.", least=0)
    joint: bool = setting(False, "Train codes, decoder and vector field in the same steps; needs encoding.method=adam.")


@dataclass
class Config:
    """Training of a surrogate. The defaults are the best known settings. null: chosen from the data."""

    recipe: str = setting("auto", "How candidate models are made. auto: by all closed-form recipes that apply; the one "
                          "with the smallest error of held-out forecasts is kept. By one recipe: law (a PDE on "
                          "harmonics of the domain), reduced_order (POD), neural (SIREN and a network as vector field, "
                          "trained by descent), coral, dino, or another registered one.")
    data: DataConfig = field(default_factory=DataConfig)
    observe: ObserveConfig = field(default_factory=ObserveConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = setting(0, "Seed of all random choices.", least=0)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    output: str | None = setting(None, "Run directory. null: outputs/train/<date-time>.")
    resume: str | None = setting(None, "Run directory of an interrupted training to be continued.")
    continues: str | None = setting(None, "Run directory of an earlier model, which is refitted to data.train (its "
                                    "training data and later ones) if that suffices (see inrflow update).")
