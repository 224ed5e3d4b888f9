"""A scenario from a TOML file; what is wrong in it is said in one line, with what was probably meant."""

from __future__ import annotations

import difflib
import tomllib
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from neows_async.errors import SettingsError
from neows_async.sandbox.gateway import GatewayRules
from neows_async.sandbox.scenario import Change, Fault, Latency, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_FAULTS = {str(kind.__struct_config__.tag): kind for kind in get_args(Fault)}


def read_scenario(file: Path) -> Scenario:
    """The scenario that ``file`` describes; the form is shown in :mod:`neows_async.sandbox.scenario`.

    :raises SettingsError: it cannot be read, is no TOML, or means nothing
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"--scenario {file} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    try:
        return parse_scenario(text)
    except SettingsError as exc:
        raise SettingsError(f"--scenario {file}: {exc}") from exc


def parse_scenario(text: str) -> Scenario:
    """The scenario that the TOML ``text`` describes.

    :raises SettingsError: it is no TOML, or means nothing
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(f"not TOML: {exc}") from exc
    _check_names(table)
    try:
        return msgspec.convert(table, Scenario)
    except msgspec.ValidationError as exc:
        raise SettingsError(str(exc).replace("`$.", "`")) from exc


def _check_names(table: dict[str, Any]) -> None:
    """Every name, for msgspec would only say that it is unknown."""
    _check_table("", table, Scenario)
    for name, kind in (("gateway", GatewayRules), ("latency", Latency)):
        if isinstance(table.get(name), dict):
            _check_table(name, table[name], kind)
    for place, change in enumerate(_tables(table, "changes")):
        _check_table(f"changes[{place}]", change, Change)
    for place, fault in enumerate(_tables(table, "faults")):
        tag = fault.get("kind")
        if tag is None:
            raise SettingsError(f"faults[{place}] has no kind; there are {', '.join(_FAULTS)}")
        if tag not in _FAULTS:
            raise SettingsError(f"faults[{place}]: there is no kind {tag!r}; {_nearest(str(tag), _FAULTS)}")
        _check_table(f"faults[{place}]", {name: fault[name] for name in fault if name != "kind"}, _FAULTS[tag])


def _tables(table: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = table.get(name, [])
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _check_table(where: str, table: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    for name in table:
        if name not in kind.__struct_fields__:
            place = f"{where}: " if where else ""
            raise SettingsError(f"{place}there is no {name!r}; {_nearest(name, kind.__struct_fields__)}")


def _nearest(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"there are {', '.join(known)}"
