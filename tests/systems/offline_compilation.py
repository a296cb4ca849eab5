"""Compiles the shipped kernels for absent GPUs and reads registers, memory and instructions from the assembly.

As a script it compiles the configurations on standard input (JSON, one per line) and prints their resources likewise.
The tests run it in a separate process, since a kernel's module decides at import whether it is interpreted or compiled.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

FORWARD, SHARED, BACKWARD, TANGENT = "forward", "shared trunk", "backward", "tangent"


@dataclass(frozen=True)
class Configuration:
    """One kernel as the launcher would start it."""

    kernel: str
    capability: int
    width: int = 64
    layers: int = 4
    coordinates: int = 2
    channels: int = 2
    precision: str = "fast"
    gain: bool = False
    output_shared: bool = True
    many: bool = False
    weights: bool = True
    points: bool = False


def compile_configuration(configuration: Configuration) -> dict:
    """Registers, stack and shared memory in bytes, warps, instructions per activation and counts of opcodes."""
    from inrflow_kernels.triton import backward, forward, launch, launch_forward, tangent

    precision = launch.PRECISIONS[configuration.precision]
    width, accurate = configuration.width, configuration.precision == "accurate"
    constants = dict(
        D=configuration.coordinates,
        DP=launch.padded_coordinates(configuration.coordinates),
        H=width,
        L=configuration.layers,
        C=configuration.channels,
        PREC=precision.operands,
        SINE=precision.sine,
        INTERPRETED=False,
    )
    scaled = dict(SCALE=1 / precision.scale)
    if configuration.kernel in (FORWARD, SHARED):
        shape = launch.forward_launch(width, accurate, configuration.layers)
        scaled |= dict(HC=shape.chunk, RESIDENT=shape.resident)
    if configuration.kernel == FORWARD:
        kernel = forward.siren_kernel
        shared = configuration.output_shared
        constants |= scaled | dict(HAS_GAIN=configuration.gain, OUTPUT_SHARED=shared, BIAS_SHARED=shared)
    elif configuration.kernel == SHARED:
        kernel = forward.shared_trunk_kernel
        constants |= scaled | dict(BN=launch_forward.SHARED_TRUNK_COLUMNS)
    elif configuration.kernel == BACKWARD:
        kernel = backward.backward_kernel
        shape = launch.backward_launch(width, configuration.layers, configuration.capability)
        store = width > 64 and (configuration.weights or configuration.gain)
        constants |= dict(
            HAS_GAIN=configuration.gain,
            OUTPUT_SHARED=configuration.output_shared or configuration.many,
            MANY_OUTPUTS=configuration.many,
            WANT_X=configuration.points,
            WANT_GAIN=configuration.gain,
            WANT_WEIGHTS=configuration.weights and not store,
            WANT_OUTPUT=configuration.weights and not configuration.many,
            STORE=store,
            RESIDENT=shape.resident,
        )
    else:
        kernel = tangent.tangent_kernel
        shape = launch.tangent_launch(width, accurate)
        constants |= scaled | dict(
            DIRECTIONS=shape.directions,
            RESIDENT=shape.resident,
            HAS_GAIN=configuration.gain,
            OF_X=configuration.points,
            OF_SHIFT=not configuration.points,
            OF_GAIN=configuration.gain and not configuration.points,
            OF_OUTPUT=False,
            OF_BIAS=False,
            RADIANS=1.0 / precision.scale,
        )
    constants["BM"] = shape.rows
    return _compile(kernel, constants, shape.warps, configuration)


# Strides that are multiples of 16 at every width, of which the launcher informs the compiler to merge memory accesses.
ALIGNED_STRIDES = {
    "shift_stride",
    "output_stride",
    "stored_stride",
    "shift_direction",
    "gain_direction",
    "output_direction",
    "shift_tangent_stride",
    "gain_tangent_stride",
    "output_tangent_stride",
}
OPERANDS = {"FIRST", "HIDDEN", "OUTPUT", "FEATURES", "STORED", "OUTPUT_TANGENT"}


def _compile(kernel, constants: dict, warps: int, configuration: Configuration) -> dict:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    operand = "*bf16" if configuration.precision == "bf16" else "*fp16"
    signature, aligned = {}, {}
    for index, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name.isupper():
            signature[name] = "*i32" if name == "TILES" else operand if name in OPERANDS else "*fp32"
            aligned[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32"
            if name in ALIGNED_STRIDES:
                aligned[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    target = GPUTarget("cuda", configuration.capability, 32)
    options = dict(num_warps=warps, num_stages=1)
    if configuration.kernel == BACKWARD:
        from inrflow_kernels.triton.launch_backward import register_limit

        options |= register_limit(constants["DP"])
    compiled = triton.compile(source, target=target, options=options)
    assembly, usage = _disassemble(compiled.asm["cubin"])
    registers, stack = map(int, re.findall(r"REG:(\d+) STACK:(\d+)", usage)[0])
    opcodes = _opcodes(assembly)
    instructions = sum(opcodes.values()) - opcodes.get("NOP", 0)
    activations = configuration.layers * constants["BM"] * configuration.width / (32 * warps)
    return dict(
        registers=registers,
        stack=stack,
        shared=compiled.metadata.shared,
        warps=warps,
        instructions=instructions,
        per_activation=instructions / activations,
        opcodes=dict(opcodes),
    )


def _disassemble(cubin: bytes) -> tuple[str, str]:
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)

        def dump(what: str) -> str:
            return subprocess.run([tool, what, path], capture_output=True, text=True, check=True).stdout

        return dump("--dump-sass"), dump("--dump-resource-usage")


def _opcodes(assembly: str) -> Counter:
    """How often each opcode (without its modifiers) occurs."""
    found: Counter = Counter()
    for line in assembly.splitlines():
        if not re.search(r"/\*[0-9a-f]{4,5}\*/", line):
            continue
        text = re.sub(r"^@!?U?P[T\d]+ ", "", re.sub(r"/\*.*?\*/", "", line).strip())
        if text:
            found[text.split()[0].rstrip(";").split(".")[0]] += 1
    return found


def resources(configurations: list[Configuration]) -> list[dict]:
    """Resources of every configuration, compiled in a process that does not interpret."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    lines = "\n".join(json.dumps(asdict(configuration)) for configuration in configurations)
    done = subprocess.run(
        [sys.executable, __file__], input=lines, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(compile_configuration(Configuration(**json.loads(line)))), flush=True)
