"""Model cards in Markdown, from a `Surrogate` and the reports of its run, evaluation.json and candidates.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inrflow.runtime.atomic_files import write_text
from inrflow.runtime.safe_names import printable
from inrflow.runtime.shown import trajectories, with_unit

CARD_FILE = "README.md"
_CANDIDATES = 12
_LIBRARY = "library_name: inrflow"  # second line of cards


@dataclass(frozen=True)
class Exported:
    """Result of an export: a line for each graph that was written, a sentence for each part that is missing, the time
    step, and whether forecasts are made at once, not step by step."""

    graphs: list[str]
    missing: list[str]
    at_points: bool
    step: float | None
    at_once: bool = False


def write_card(surrogate: Any, model: Path) -> Path:
    """Write README.md, the card of a `Surrogate`, beside the file of its model, whose path is returned, unless there is
    one that is no card of inrflow."""
    path = model.with_name(CARD_FILE)
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace").splitlines()[1:2] == [_LIBRARY]:
        write_text(path, model_card(surrogate, None, None, None))
    return model


def model_card(
    surrogate: Any, evaluation: dict[str, Any] | None, candidates: dict[str, Any] | None,
    exported: Exported | None
) -> str:
    """Text of README.md of an exported model, with the header for model hubs."""
    parts = [*_header(surrogate), *_system(surrogate), *_model(surrogate), *_errors(evaluation),
             *_tried(candidates), *_files(surrogate, exported), *_limits(surrogate)]
    return "\n".join(parts) + "\n"


def _header(surrogate: Any) -> Iterator[str]:
    about = surrogate.description
    yield "---"
    yield _LIBRARY
    yield "tags: [inrflow, surrogate, implicit-neural-representation, pde]"
    if about.licence:  # licence of the data, which restricts the use of the model
        yield f"license_name: {json.dumps(printable(about.licence))}"
        yield "license: other"
    yield "---"
    yield f"# {_plain(about.name)}"
    yield ""


def _system(surrogate: Any) -> Iterator[str]:
    about, training = surrogate.description, surrogate.training
    units = about.units or ("",) * len(about.channels)
    channels = ", ".join(with_unit(f"`{_plain(c)}`", _plain(u)) for c, u in zip(about.channels, units, strict=True))
    box = ", ".join(f"`{_plain(name)}` {low:.4g} to {high:.4g}"
                    for name, low, high in zip(about.coordinates, *surrogate.box, strict=True))
    yield (f"A continuous field u(t, x) of {channels}, forecast from observations of its first moments by "
           "[inrflow](https://github.com/inrflow/inrflow).")
    yield ""
    yield f"- **Domain**: {box}" + (f"; period {_numbers(about.period)}" if any(about.period or ()) else "") + (
        f"; {about.geometry}, points as unit vectors" if about.geometry else "")
    yield (f"- **Training data**: {trajectories(training.get('trajectories', '?'))} over {surrogate.horizon:.4g} "
           f"{_plain(about.duration_units or 'units of time')}, frames {surrogate.scale.unit:.4g} apart"
           + (f"; source: {_plain(about.source)}" if about.source else "")
           + (f"; licence: {_plain(about.licence)}" if about.licence else ""))


def _model(surrogate: Any) -> Iterator[str]:
    training = surrogate.training
    yield (f"- **Model**: {type(surrogate.decoder).__name__} with a code of {surrogate.code_size}; "
           f"{training.get('dynamics', '?')}; {surrogate.parameters:,} parameters")
    if surrogate.window > 1:
        yield f"- **Needs** at least {surrogate.window} observed frames"
    yield ""
    equation = list(training.get("equation") or ())
    if equation:
        yield "The law that was found, with standard errors of the last digits in brackets:"
        yield ""
        yield from (f"    {printable(line)}" for line in equation)
        yield ""


def _errors(report: dict[str, Any] | None) -> Iterator[str]:
    yield "## Errors"
    yield ""
    if report is None:
        yield "The run was not evaluated (`inrflow evaluate run=RUN data.test=FILE`)."
        yield ""
        return
    if "physics" in report:
        yield "See `evaluation.json` of the run, which has a report for each physics."
        yield ""
        return
    groups = [g for g in ("in_t", "out_t", "in_s", "out_s") if report["nmse"].get(g) is not None]
    words = {"in_t": "within the time span of training", "out_t": "beyond it", "in_s": "at observed points",
             "out_s": "at other points"}
    where = "the data it was trained on" if report.get("in_sample") else "test data"
    seen = report["observed"]
    yield (f"Mean squared errors over the variance, of {trajectories(report['trajectories'])} of {where}, forecast "
           f"from {seen['frames']} frame{'s' if seen['frames'] != 1 else ''}:")
    yield ""
    yield "| | " + " | ".join(words[g] for g in groups) + " |"
    yield "| --- |" + " --- |" * len(groups)
    references = {name.replace("_", " "): errors for name, errors in report.get("references", {}).items()}
    for name, errors in {"**this model**": report, **references}.items():
        cells = (errors.get("nmse", {}).get(g) for g in groups)
        yield f"| {_plain(name)} | " + " | ".join("-" if v is None else f"{v:.2e}" for v in cells) + " |"
    yield ""
    if isinstance(report.get("coverage_90"), float):
        yield f"90 % intervals hold {report['coverage_90']:.1%} of the values."
        yield ""


def _tried(report: dict[str, Any] | None) -> Iterator[str]:
    if not report or not report.get("candidates"):
        return
    yield "## Candidates"
    yield ""
    yield "Compared by forecasts of data that were held out (share of the variance):"
    yield ""
    yield "| recipe | candidate | unknowns | held-out error | |"
    yield "| --- | --- | --- | --- | --- |"
    chosen = report["chosen"]
    best = sorted(range(len(report["candidates"])),
                  key=lambda i: (i != chosen, report["candidates"][i]["validation_error"] or float("inf")))
    for index in best[:_CANDIDATES]:
        one = report["candidates"][index]
        error = one["validation_error"]
        yield (f"| {_plain(one['recipe'])} | {_plain(one['candidate'])} | {one['unknowns'] or '-'} | "
               f"{'-' if error is None else f'{error:.2e}'} | {'chosen' if index == chosen else ''} |")
    yield ""


def _files(surrogate: Any, exported: Exported | None) -> Iterator[str]:
    about, n = surrogate.description, surrogate.field.state_size
    yield "## Files"
    yield ""
    if exported is None:
        yield "`model.safetensors` is the model: `inrflow.from_hub(NAME)`, or `inrflow.Surrogate.load(FOLDER)`."
        yield ""
        return
    yield "`model.safetensors` is the whole model, for `inrflow.Surrogate.load`. The others need no inrflow; all"
    yield "numbers are float64, in the units of the data:"
    yield ""
    yield from (f"- {line}" for line in exported.graphs)
    yield ""
    if exported.step is not None:
        given, named = "" if exported.at_points else '"x": x, ', ", ".join(map(_plain, about.channels))
        yield "```python"
        yield "import numpy as np, onnxruntime"
        yield ""
        name, unit = "forecast" if exported.at_once else "step", _plain(about.duration_units or "of time")
        yield f'{name}, decode = (onnxruntime.InferenceSession(f"{{name}}.onnx") for name in ("{name}", "decode"))'
        yield "# from the last observed state, with solution = surrogate.assimilate(seen):"
        yield "# t, s = np.array(solution.observed[1:]), solution.states(torch.tensor(solution.observed[1:]))[0]" + (
            f"[:, :{n}]" if surrogate.context_size else "")
        yield f"t, s = np.zeros(1), np.zeros((1, {n}))"
        if exported.at_once:
            yield f"ahead = np.full(1, {10 * exported.step!r})  # ten steps, each {exported.step:.6g} {unit}"
            yield '(s,) = forecast.run(None, {"t": t, "s": s, "ahead": ahead})'
        else:
            yield f"for _ in range(10):  # each {exported.step:.6g} {unit}"
            yield f'    s, t = step.run(None, {{"t": t, "s": s}})[0], t + {exported.step!r}'
        if not exported.at_points:
            yield f"x = np.zeros((5, {len(about.coordinates)}))  # {', '.join(map(_plain, about.coordinates))}"
        code = f"s[:, :{surrogate.code_size}]" if n > surrogate.code_size else "s"
        yield f'u = decode.run(None, {{{given}"z": {code}}})[0]  # (1, N, {len(about.channels)}): {named}'
        yield "```"
        yield ""
    yield from (f"- {line}" for line in exported.missing)
    yield ""


def _limits(surrogate: Any) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield (f"Meant for fields like those of the training data, within the domain above. Forecasts beyond "
           f"{surrogate.horizon:.4g} {_plain(surrogate.description.duration_units or 'units of time')} after the first "
           "observation are extrapolations; exported graphs do not warn.")


def _plain(text: str) -> str:
    """Name from a file, without Markdown markup."""
    return printable(str(text)).replace("|", "/").replace("`", "'").replace("\n", " ").replace("<", "(")


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
