"""Reads settings from outside: arguments first, then the environment, then ``.env``, then the TOML file.

This is the only module that reads the environment and files for settings.
"""

from __future__ import annotations

import difflib
import os
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dotenv import dotenv_values
from pydantic import ValidationError

from neows_async.errors import SettingsError
from neows_async.settings import DEMO_KEY, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    import click

ENV_PREFIX: Final = "NEOWS_"
KEY_VARIABLE: Final = "NASA_API_KEY"
DEMO_KEY_HINT: Final = f"{KEY_VARIABLE}={DEMO_KEY} (enough for 200)"
_KEY_IN_FILE: Final = KEY_VARIABLE.lower()
_DOTENV: Final = ".env"
_MAX_FILE_BYTES: Final = 1 << 20


# -- .env and the TOML file ---------------------------------------------------------------------


def defaults_of(command: click.Command, path: Path | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The values that ``.env`` and the file give to the options of ``command``; ``.env`` wins.

    :param path: the TOML file; None reads ``.env`` alone
    :returns: values by parameter, for click's ``default_map``; and variables: all of ``.env``, and the file's key
    :raises SettingsError: one of the two cannot be read, or the file sets something unknown
    """
    options = {_key_of(option): option for option in command.params if option.name not in ("config", "help", None)}
    in_file = _read_toml(path, {*options, _KEY_IN_FILE}) if path is not None else {}
    variables: dict[str, str] = {}
    if _KEY_IN_FILE in in_file:
        variables[KEY_VARIABLE] = str(in_file.pop(_KEY_IN_FILE))
    in_dotenv = _read_dotenv()
    # .env wins over the file, also for the key.
    variables |= in_dotenv
    values = {str(options[key].name): _checked(options[key], value, path) for key, value in in_file.items()}
    for key, option in options.items():
        # An empty variable is no value, as in the environment.
        if text := in_dotenv.get(f"{ENV_PREFIX}{key.upper()}"):
            values[str(option.name)] = text.split() if _is_multiple(option) else text
    return values, variables


def _read_dotenv() -> dict[str, str]:
    if not Path(_DOTENV).exists():
        return {}
    try:
        return {name: value for name, value in dotenv_values(_DOTENV, interpolate=False).items() if value is not None}
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{_DOTENV} cannot be read: {exc}; repair or remove it") from exc


def _read_toml(path: Path, known: set[str]) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            # Bounded: --config may point at any file.
            text = file.read(_MAX_FILE_BYTES).decode()
        values = tomllib.loads(text)
    except OSError as exc:
        raise SettingsError(f"--config {path} cannot be read: {exc.strerror or exc}") from exc
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise SettingsError(f"--config {path} is not TOML: {exc}") from exc
    for name in values:
        if name not in known:
            # An unknown name is an error: a slip of the pen would silently leave the default in place.
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise SettingsError(f"--config {path}: there is no setting {name!r}; did you mean {nearest[0]!r}?")
    return values


def _key_of(option: click.Parameter) -> str:
    """An option's key in the file: ``max_rate`` for ``--max-rate``, whatever its parameter is called."""
    return max(option.opts, key=len).removeprefix("--").replace("-", "_")


def _is_multiple(option: click.Parameter) -> bool:
    return bool(getattr(option, "multiple", False))


def _checked(option: click.Parameter, value: Any, path: Path | None) -> Any:
    """A value of the file, if it has the type of the option. A string is parsed as on the command line.

    :raises SettingsError: it has another type; click would convert it, e.g. ``5.5`` to 5
    """
    if _is_multiple(option):
        values = value if isinstance(value, list) else [value]
        if all(isinstance(entry, str) for entry in values):
            return values
        kind = 'a list of strings, e.g. ["neos:designation"]'
    elif getattr(option, "is_flag", False):
        if isinstance(value, bool):
            return value
        kind = "true or false"
    elif isinstance(value, str):
        return value
    elif option.type.name.startswith(("text", "choice", "file")):
        kind = "a string in quotes"
    else:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        whole = option.type.name.startswith("integer")
        if isinstance(value, float) and not whole:
            return value
        kind = "a whole number" if whole else "a number"
    raise SettingsError(f"--config {path}: {_key_of(option)} = {value!r} is invalid; it must be {kind}")


# -- the key, and the validated settings --------------------------------------------------------


def api_key(variables: Mapping[str, str]) -> str | None:
    """The key from the environment, else from ``.env`` or the file. None if it is empty."""
    key = os.environ.get(KEY_VARIABLE, variables.get(KEY_VARIABLE, "")).strip()
    # Without the value in the text: the message is printed.
    if not all("!" <= char <= "~" for char in key):
        raise SettingsError(f"{KEY_VARIABLE} has a character that cannot be in a key; copy the key again")
    return key or None


def settings_of(values: Mapping[str, Any]) -> Settings:
    """The validated settings."""
    try:
        return Settings(**values)
    except ValidationError as exc:
        # One error at a time, named as the user wrote it.
        first = exc.errors(include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        option = Settings.option(field)
        name = option.flag if option else f"--{field.replace('_', '-')}"
        text = str(first["ctx"]["error"]) if first["type"] == "value_error" else _reason(first)
        raise SettingsError(f"{name}: {text}") from exc


def _reason(error: Any) -> str:
    given, context = error["input"], error.get("ctx", {})
    if "ge" in context:
        return f"{given} is too small; it must be at least {context['ge']}"
    if "gt" in context:
        return f"{given} is too small; it must be more than {context['gt']}"
    if "le" in context:
        return f"{given} is too large; it must be at most {context['le']}"
    return f"{given!r} is invalid: {error['msg']}"


# -- the rest of the environment ----------------------------------------------------------------


def proxy_for(host: str) -> str | None:
    """The proxy for ``https`` requests to ``host``, from the variables that other programs read too."""
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - slow, and only requests to NASA need it

    proxies = getproxies()
    # NO_PROXY wins over any proxy.
    if proxy_bypass(host):
        return None
    return proxies.get("https") or proxies.get("all")


def quota_store_path() -> Path | None:
    """The file in which this user's runs on this machine share their quotas; None if there is no home folder."""
    state_home = os.environ.get("XDG_STATE_HOME", "")
    if Path(state_home).is_absolute():
        folder = Path(state_home)
    else:
        try:
            home = Path.home()
        except RuntimeError:  # a user without an entry in the password database
            return None
        folder = home / ("Library/Application Support" if sys.platform == "darwin" else ".local/state")
    return folder / "neows-async" / "quota.sqlite3"
