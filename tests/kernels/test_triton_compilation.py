"""Resources of the shipped kernels compiled for sm_80, sm_90 and sm_100, without a GPU.

By default a representative subset is compiled; with INRFLOW_RUN_SLOW=1 in the environment, every kernel in every mode.
"""

import itertools
import os

import pytest

pytest.importorskip("triton")

from offline_compilation import BACKWARD, FORWARD, SHARED, TANGENT, Configuration, resources  # noqa: E402

# Bytes of shared memory available to a program, which offline compilation does not check.
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
TENSOR_CORES = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}
# On sm_90: instructions per activation, bytes of spills, bytes of shared memory; measured, with a small margin.
SM90_BUDGET = {
    Configuration(FORWARD, 90): (5.3, 0, 36 * 1024),
    Configuration(FORWARD, 90, precision="accurate"): (18.8, 0, 62 * 1024),
    Configuration(BACKWARD, 90): (16.4, 128, 62 * 1024),
    Configuration(BACKWARD, 90, width=128): (13.7, 640, 140 * 1024),
}
SLOW_SM90_BUDGET = {
    Configuration(FORWARD, 90, gain=True): (5.7, 0, 36 * 1024),
    Configuration(FORWARD, 90, width=128): (4.75, 0, 112 * 1024),
    Configuration(FORWARD, 90, width=256): (3.1, 0, 96 * 1024),
    Configuration(BACKWARD, 90, layers=3): (16.6, 16, 54 * 1024),
    Configuration(BACKWARD, 90, points=True): (17.6, 128, 62 * 1024),
    Configuration(BACKWARD, 90, gain=True): (25.0, 488, 62 * 1024),
    Configuration(BACKWARD, 90, weights=False): (11.5, 0, 46 * 1024),
    Configuration(BACKWARD, 90, width=128, weights=False): (10.0, 208, 136 * 1024),
}
slow = pytest.mark.skipif("INRFLOW_RUN_SLOW" not in os.environ, reason="compiles many kernels: INRFLOW_RUN_SLOW=1")


def stack_budget(configuration: Configuration) -> int:
    """Largest number of bytes of spills per thread of a configuration, as measured on the compiled ones."""
    if configuration.kernel in (FORWARD, SHARED):
        if configuration.capability == 80 and configuration.precision == "accurate":
            return 1600 if configuration.width == 256 else 80
        return 720 if configuration.width == 256 else 0
    if configuration.coordinates > 8:
        return 2000
    if configuration.width <= 64:
        return 1000 if configuration.capability == 100 else 760
    return 1100 if configuration.capability == 90 else 1800


def check(configuration: Configuration, found: dict) -> None:
    opcodes = found["opcodes"]
    assert found["shared"] <= SHARED_MEMORY[configuration.capability], "too much shared memory"
    assert found["stack"] <= stack_budget(configuration), "too many spills"
    assert opcodes.get(TENSOR_CORES[configuration.capability], 0) > 0, "the products do not run on the tensor cores"
    assert not any(name in opcodes for name in ("RED", "REDG", "ATOM", "ATOMG")), "there are atomics"
    # libdevice's exact sine converts to integers and keeps a table in local memory for large arguments.
    assert opcodes.get("F2I", 0) == 0, "a sine takes the slow path"


def check_all(configurations) -> None:
    configurations = list(configurations)
    failures = []
    for configuration, found in zip(configurations, resources(configurations), strict=True):
        try:
            check(configuration, found)
        except AssertionError as error:
            found.pop("opcodes")
            failures.append(f"{configuration}: {error}\n{found}")
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("budget", [SM90_BUDGET, pytest.param(SLOW_SM90_BUDGET, marks=slow)], ids=["some", "others"])
def test_sm90_resources_stay_within_the_measured_budget(budget):
    for (configuration, (instructions, stack, shared)), found in zip(
        budget.items(), resources(list(budget)), strict=True
    ):
        check(configuration, found)
        assert found["per_activation"] <= instructions, configuration
        assert found["stack"] <= stack, configuration
        assert found["shared"] <= shared, configuration


def test_every_kernel_compiles_for_every_architecture():
    check_all(
        Configuration(kernel, capability, **options)
        for capability in (80, 100)
        for kernel, options in (
            (FORWARD, dict(gain=True)),
            (FORWARD, dict(width=256)),
            (SHARED, dict()),
            (BACKWARD, dict()),
            (TANGENT, dict(points=True)),
        )
    )


def every_shipped_configuration():
    """Every kernel, architecture, precision and width with the options that change its registers most, about 340."""
    for capability, precision, width in itertools.product(
        (80, 90, 100), ("fast", "accurate", "bf16"), (32, 64, 128, 256)
    ):
        common = dict(capability=capability, precision=precision, width=width)
        for layers in (1, 4, 6):
            yield Configuration(FORWARD, gain=True, output_shared=False, layers=layers, **common)
        yield Configuration(FORWARD, coordinates=16, channels=16, **common)
        yield Configuration(SHARED, channels=3, **common)
        if width <= 64 or (width == 128 and (capability, precision) != (80, "accurate")):
            yield Configuration(TANGENT, gain=True, **common)
            yield Configuration(TANGENT, points=True, **common)
    for capability, precision, width in itertools.product((80, 90, 100), ("fast", "bf16"), (32, 64, 128)):
        common = dict(capability=capability, precision=precision, width=width)
        for gain, weights in itertools.product((False, True), repeat=2):
            yield Configuration(BACKWARD, gain=gain, weights=weights, points=True, **common)
        yield Configuration(BACKWARD, layers=5, **common)
        yield Configuration(BACKWARD, coordinates=16, channels=16, output_shared=False, **common)
        yield Configuration(BACKWARD, many=True, **common)


@slow
def test_every_shipped_configuration():
    check_all(every_shipped_configuration())
