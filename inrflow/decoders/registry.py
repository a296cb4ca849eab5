"""Registry of decoders and embeddings: how a saved model names its decoder.

A decoder of one's own is saved and loaded like those of the package once its module is imported:

    @register_decoder("polynomial")
    class Polynomial(Decoder):
        def structure(self): return {"channels": self.channels, "code_size": self.code_size}

`structure()` gives the arguments of the constructor; weights are kept apart, by `state_dict`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import nn

from inrflow.decoders.base import Decoder
from inrflow.errors import UserError

_CLASSES: dict[str, type[nn.Module]] = {}  # decoders and the embeddings that they hold

_ELSEWHERE = {"domain_harmonics": "inrflow.decoders.domain_harmonics"}  # imported where a model has them

Class = TypeVar("Class", bound=type[nn.Module])


@runtime_checkable
class Structured(Protocol):
    """A decoder, or the embedding of one: what can be made anew from the arguments of its constructor."""

    def structure(self) -> dict[str, Any]: ...


def register_decoder(name: str) -> Callable[[Class], Class]:
    """Class decorator: saved models call a decoder of this class `name`.

    Raises ValueError where another class has the name.
    """

    def register(own: Class) -> Class:
        other = _CLASSES.get(name, own)
        if (other.__module__, other.__qualname__) != (own.__module__, own.__qualname__):
            raise ValueError(f"the name {name!r} belongs to {other.__module__}.{other.__qualname__}; choose another")
        _CLASSES[name] = own
        return own

    return register


register_embedding = register_decoder


def decoder_class(name: str) -> type[Decoder]:
    """The decoder class of a name. Raises UserError where none is registered."""
    own = _class(name)
    if not issubclass(own, Decoder):
        raise UserError(f"{name!r} is an embedding, not a decoder; choose from {', '.join(decoder_names())}")
    return own


def decoder_names() -> list[str]:
    """Names of all registered decoders."""
    return sorted(name for name, one in _CLASSES.items() if issubclass(one, Decoder))


def _class(name: str) -> type[nn.Module]:
    if name in _ELSEWHERE:
        import_module(_ELSEWHERE[name])
    if name not in _CLASSES:
        raise UserError(
            f"no decoder is registered as {name!r}, only {', '.join(decoder_names())}; import the module that defines "
            f"it, with @register_decoder({name!r}) above the class"
        )
    return _CLASSES[name]


def decoder_structure(decoder: Structured) -> dict[str, Any]:
    """Plain values from which `build_decoder` makes a decoder of the same shape: its name and its `structure()`.

    Raises UserError for a class that is not registered.
    """
    own = type(decoder)
    name = next((name for name, one in _CLASSES.items() if one is own), None)
    if name is None:
        raise UserError(
            f"the decoder {own.__module__}.{own.__qualname__} is not registered, so a model that has it cannot be "
            "saved; put @register_decoder(NAME) above the class"
        )
    values = decoder.structure().items()
    return {"kind": name, **{key: decoder_structure(v) if isinstance(v, Structured) else v for key, v in values}}


def build_decoder(structure: dict[str, Any]) -> Decoder:
    """The decoder of a structure, its weights still to be loaded.

    Raises UserError for a name that is not registered.
    """
    decoder_class(_current(structure)["kind"])
    decoder = _build(structure)
    assert isinstance(decoder, Decoder)
    return decoder


def _build(structure: dict[str, Any]) -> nn.Module:
    values = _current(structure)
    own = _class(values.pop("kind"))
    return own(**{key: _build(v) if isinstance(v, dict) and "kind" in v else v for key, v in values.items()})


def _current(structure: dict[str, Any]) -> dict[str, Any]:
    """A copy of a structure, in the words of this version where an earlier one wrote it."""
    values = dict(structure)
    if values["kind"] == "siren" and values["depth"] == 0:  # once the harmonics alone
        return {"kind": "harmonics", **{key: values[key] for key in ("embedding", "channels", "code_size")}}
    if values["kind"] == "closure":
        raise UserError("the decoder has a closure of POD modes of an earlier version of inrflow, which this version "
                        "does not have; train again")
    return values
