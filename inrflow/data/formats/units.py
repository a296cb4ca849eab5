"""Units in brackets at the end of names of columns."""

from __future__ import annotations

import re

from inrflow.data.formats.columns import IN_TABLES

#: Symbols of units with the prefixes that occur, and without; others, such as CO(GT) and flow (in), are parts of names.
_PREFIXED = ("[nµμumcdhk]?(?:m|g|s|l|L|A|V|W|N|J|Pa|Hz|K|mol|M|S|F|C|Bq|Sv|Gy|T|lx|lm|cd|eV|bar|mbar|Wh|cal"
             "|sr|rad|VA|Ω|ohm)|[MGT](?:Pa|W|Wh|J|Hz|N|eV|Bq|g)")
_PLAIN = ("[°º] ?[CFKNESW]?|℃|℉|deg(?:rees?)?(?:[ _]?(?:C|F|K|north|east|celsius))?|[cC]elsius|[kK]elvin|[fF]ahrenheit"
          "|%|‰|pp[mbt]v?|atm|mmHg|inHg|psi|psu|PSU|[NF]NU|NTU|DU|dBZ?|pH|rpm|mph|kts?|kn|knots?|ft|feet|mi|miles?|ha"
          "|met[er]{2}s?|sec(?:onds?)?|min|hr?s?|hours?|d|days?|yr|years?|in|inch(?:es)?|[lL]it[er]{2}s?|counts?|vol")
_FACTOR = rf"(?:{_PREFIXED}|{_PLAIN})(?:(?:\^|\*\*)?[-−+]?\d|[⁻⁺]?[⁰¹²³⁴-⁹])?"
_UNIT = re.compile(rf"(?:1 ?/ ?)?{_FACTOR}(?:(?: ?[·⋅*/.] ?| per | ){_FACTOR})*")
_HEADER = re.compile(r".*?\S(?:\s*\[(?P<square>[^][]+)\]|(?P<space>\s*)\((?P<round>[^()]+)\))\s*")
_NO_UNITS_ALONE = ("min", "in", "d", "day", "days", "hs", "vol", "M")  # temperature (min), flow (in)
_ROUND_LETTERS = "mKCFVJsgh%°‰℃℉"  # single letters in round brackets that are units: not u(x), wind (N)


def unit_in(name: str) -> str:
    """Unit in brackets at the end of the name of a column, as of `NO2 [µg/m³]` and `Temp (°C)`; empty if there is none.
    Only known units count: `u(x)`, `CO(GT)` and `sin(2)` are names."""
    found = _HEADER.fullmatch(name.replace(*IN_TABLES))
    unit = (found["square"] or found["round"]).strip() if found else ""
    if found is None or not _UNIT.fullmatch(unit) or unit in _NO_UNITS_ALONE:
        return ""
    letter = found["round"] is not None and len(unit) == 1 and (
        unit not in _ROUND_LETTERS or unit.isalpha() and not found["space"])
    return "" if letter else unit
