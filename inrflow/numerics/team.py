"""Several processes that share the work of one training: the first process trains, the others compute for it.

Every branch, clock, file and message is that of the first process, so that no two can disagree, and effort counts the
work of all of them: a training makes the same choices with any number of processes, only sooner with more. Single items
of work are sent through connections, gradients through torch.distributed (gloo between processors, nccl between GPUs).
"""

from __future__ import annotations

import copy
import os
import pickle
import secrets
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from multiprocessing.connection import Client, Connection, Listener
from time import monotonic
from typing import Any, TypeVar

import torch
from torch import nn

from inrflow.numerics.effort import Limit, OutOfTime, effort
from inrflow.runtime.processes import RANKS, Processes

_LOOK = 0.1  # seconds between polls for messages of another process
_GONE = (EOFError, OSError)  # exceptions of a connection whose other end has died
_CUT = ("gloo", "peer", "onnection", "pipe", "NCCL")  # in messages of torch.distributed after a process died

A = TypeVar("A")
B = TypeVar("B")
Compute = Callable[..., tuple[float, ...]]


class Lost(KeyboardInterrupt):
    """Another process of the training has ended."""


class Team:
    """The processes of one training as seen by the first; with a single process, all work is done locally."""

    def __init__(self) -> None:
        self.size, self.device = 1, torch.device("cpu")
        self._others: list[Connection] = []
        self._busy: dict[Connection, object] = {}  # and the identity of the item sent to it
        self._told: object = None
        self._known: object = None
        self._taught = False

    @contextmanager
    def gathered(self) -> Iterator[bool]:
        """Context manager of the team of all processes of the job. Yields True in the first; in the others, which only
        work for it, False once it has finished. Raises UserError as `Processes.joined`."""
        if not RANKS & set(os.environ):
            yield True
            return
        processes = Processes.of()
        with processes.joined() as device:
            self.size, self.device = processes.size, device
            if not processes.first:
                try:
                    ended = _serve(processes, device)
                except Exception:
                    sys.stderr = sys.__stderr__  # an internal error is shown whichever process it occurs in
                    raise
                if not ended and processes.rank == 1:
                    print("inrflow train: the first process of this job has ended; give resume=DIR to go on",
                          file=sys.__stderr__)
                yield False
                return
            try:
                self._others = _connected(processes)
                yield True
            finally:
                for other in self._others:
                    with suppress(OSError):
                        _send_message(other, "end")
                        other.close()
                self.size, self._others, self._known, self._told = 1, [], None, None
                self._busy.clear()

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """Results of a function in the order of items, in parallel if both can be pickled. Effort is added as results
        are consumed, so that decisions are the same for any number of processes. Raises Lost."""
        return map(function, items) if self.size == 1 else self._shared(function, items)

    def _shared(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        items, own = iter(items), object()
        while batch := list(islice(items, self.size)):
            texts = [_pickled(item) for item in batch[1:]]
            text = _pickled(function) if texts and self._told is not own else b""
            if text is None or None in texts:  # something cannot be pickled: compute all here
                yield from map(function, chain(batch, items))
                return
            if text:
                for other in self._others:
                    self._send(other, "function", text)
                self._told = own
            asked = [(other, item, object()) for other, item in zip(self._others, batch[1:], strict=False)]
            for (other, _, number), told in zip(asked, texts, strict=True):
                self._send(other, "item", effort.left(), told)
                self._busy[other] = number
            yield function(batch[0])
            for other, item, number in asked:  # unless the process was given other work meanwhile
                yield self._result(other) if self._busy.get(other) is number else function(item)

    def gradients(self, known: object, compute: Compute, module: nn.Module, *arguments: Any) -> tuple[float, ...]:
        """Values and gradients that are sums over a batch, computed in parallel; the gradients are added to those of a
        module.

        Args:
            known: key that is equal as long as `compute` and the parts of the module that are not trained are the same.
            compute: (module, *arguments, part) -> values; adds the gradients of the `part` of a batch, a slice. The
                work is shared if it and the module can be pickled.
        Raises Lost."""
        if self._others and known != self._known:
            text = _pickled((compute, copy.deepcopy(module).cpu()))
            for other in self._others if text is not None else []:
                self._send(other, "module", text)
            self._known, self._taught = known, text is not None
        if not self._others or not self._taught:
            return compute(module, *arguments, slice(None))
        for other in self._others:
            self._send(other, "part", arguments)
        values: tuple[float, ...] | None = None
        try:
            _broadcast(module, self.device)
            try:
                values = compute(module, *arguments, slice(0, None, self.size))
            finally:  # the others wait for this sum, even after an exception here
                values, seconds = _summed(module, values, 0.0, self.device)
        except RuntimeError as error:
            if any(word in str(error) for word in _CUT):
                raise Lost from error
            raise
        effort.add(seconds=seconds)
        return values

    def _send(self, other: Connection, *message: Any) -> None:
        try:
            if other in self._busy:  # with an item whose result is no longer needed
                _send_message(other, "drop")
                del self._busy[other]
                other.recv_bytes()
            _send_message(other, *message)
        except _GONE as error:
            raise Lost from error

    def _result(self, other: Connection) -> Any:
        try:
            while not other.poll(_LOOK):
                effort.check()
            result, error, seconds = _received(other)
        except _GONE as lost:
            raise Lost from lost
        del self._busy[other]
        effort.add(seconds=seconds)
        if error is not None:
            raise error
        return result


team = Team()


def _send_message(other: Connection, *message: Any) -> None:
    other.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))  # `send` would keep tensors in shared-memory files


def _received(other: Connection) -> Any:
    return pickle.loads(other.recv_bytes())


def _pickled(what: object) -> bytes | None:
    """Pickled object; None for objects that cannot be pickled, such as local functions or open files."""
    try:
        return pickle.dumps(what, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None


def _connected(processes: Processes) -> list[Connection]:
    """Connections from the first process to the others."""
    if processes.size == 1:
        return []
    key = secrets.token_bytes(32)
    with Listener((os.environ["MASTER_ADDR"], 0), backlog=processes.size, authkey=key) as listener:
        processes.agreed((listener.address, key))
        return [listener.accept() for _ in range(processes.size - 1)]


def _serve(processes: Processes, device: torch.device) -> bool:
    """Work for the first process until it sends "end"; False if it has died before.

    Signals are ignored here and left to the first process, which may want to save what this process still computes.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    function: Callable[[Any], Any] = repr
    compute, module = None, nn.Module()
    try:
        address, key = processes.agreed(None)
        with Client(address, authkey=key) as first:
            while (message := _received(first))[0] != "end":
                match message:
                    case "function", text:
                        function = pickle.loads(text)
                    case "item", left, item:
                        _send_message(first, *_answer(first, function, pickle.loads(item), left))
                    case "module", text:
                        compute, module = pickle.loads(text)
                        module.to(device)
                    case "part", arguments:
                        assert compute is not None
                        _broadcast(module, device)
                        module.zero_grad(set_to_none=True)
                        began = effort.spent
                        values = compute(module, *arguments, slice(processes.rank, None, processes.size))
                        _summed(module, values, effort.spent - began, device)
        return True
    except _GONE:
        return False
    except RuntimeError:  # during a sum: the first process died, or it has ended and sent "end"
        with suppress(*_GONE):
            while first.poll(1.0):
                if _received(first)[0] == "end":
                    return True
            raise
        return False


def _answer(first: Connection, function: Callable[[Any], Any], item: Any, left: float) -> tuple:
    """Result of an item or the exception it raises, and the effort. Work is abandoned once it needs more than `left`,
    or if the first process has sent another message, since it then no longer waits for the result."""
    began, looked = effort.spent, monotonic()

    def over() -> bool:
        nonlocal looked
        if monotonic() - looked > _LOOK:
            looked = monotonic()
            if first.poll():
                return True
        return effort.spent - began > left

    try:
        with effort.limited(Limit(asked=over)):
            return function(item), None, effort.spent - began
    except (OutOfTime, Exception) as error:
        return None, error, effort.spent - began


def trained(module: nn.Module) -> list[nn.Parameter]:
    """Parameters that require gradients."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


@torch.no_grad()
def _broadcast(module: nn.Module, device: torch.device) -> None:
    """Copy the trained parameters of the first process to all others."""
    own = trained(module)
    flat = torch.cat([parameter.detach().flatten() for parameter in own]).to(device)
    torch.distributed.broadcast(flat, 0)
    for parameter, part in zip(own, flat.split([parameter.numel() for parameter in own]), strict=True):
        parameter.copy_(part.view_as(parameter))


@torch.no_grad()
def _summed(module: nn.Module, values: tuple[float, ...] | None, seconds: float, device: torch.device
            ) -> tuple[tuple[float, ...], float]:
    """Sums of values and effort over all processes, valid in the first one. Gradients are summed in place; they stay
    None where no process has one."""
    own = trained(module)
    every = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
    given = own[0].new_tensor([p.grad is not None for p in own])
    told = given.new_tensor([seconds, *(values or ())])
    sizes = [*(p.numel() for p in own), len(given), len(told)]
    flat = torch.cat([part.flatten() for part in (*every, given, told)]).to(device)
    torch.distributed.reduce(flat, 0)
    *sums, given, told = flat.to(given.device).split(sizes)
    for parameter, part, some in zip(own, sums, given.tolist(), strict=True):
        parameter.grad = part.view_as(parameter) if some else None
    spent, *rest = told.tolist()
    return tuple(rest), spent


