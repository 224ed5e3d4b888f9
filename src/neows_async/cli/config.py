"""Where a setting's value comes from: arguments, then the environment, then ``.env``, then the TOML file."""

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
from neows_async.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    import click

ENV_PREFIX: Final = "NEOWS_"
KEY_VARIABLE: Final = "NASA_API_KEY"
KEY_IN_FILE: Final = "nasa_api_key"
_DOTENV: Final = ".env"
_MAX_FILE_BYTES: Final = 1 << 20

# Options whose name differs from the setting's, which has its unit in it.
SETTING_OF: Final = {
    "max_rate": "max_rate_per_s",
    "retry_budget": "retry_budget_s",
    "max_wait": "max_wait_s",
    "max_outage": "max_outage_s",
    "probe_every": "probe_every_s",
    "budget": "budget_requests",
    "request_timeout": "request_timeout_s",
    "connect_timeout": "connect_timeout_s",
    "storage_timeout": "storage_timeout_s",
    "resume_within": "resume_within_s",
}
OPTION_OF: Final = {setting: option for option, setting in SETTING_OF.items()}


def flag(option: str) -> str:
    """``max_rate`` → ``--max-rate``."""
    return "--no-archive" if option == "archive" else f"--{option.replace('_', '-')}"


def variable(option: str) -> str:
    """``max_rate`` → ``NEOWS_MAX_RATE``."""
    return f"{ENV_PREFIX}{option.upper()}"


def read_dotenv() -> dict[str, str]:
    """What ``.env`` in the working directory sets; nothing if there is none."""
    try:
        return {name: value for name, value in dotenv_values(_DOTENV, interpolate=False).items() if value is not None}
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{_DOTENV} cannot be read: {exc}; mend it or remove it") from exc


def read_file(path: Path, known: set[str]) -> dict[str, Any]:
    """The settings of a TOML file.

    :param known: the names it may use
    :raises SettingsError: it cannot be read, or sets something unknown
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES).decode()
        values = tomllib.loads(text)
    except OSError as exc:
        raise SettingsError(f"--config {path} cannot be read: {exc.strerror or exc}") from exc
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise SettingsError(f"--config {path} is not TOML: {exc}") from exc
    for name in values:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise SettingsError(f"--config {path}: there is no setting {name!r}; did you mean {nearest[0]!r}?")
    return values


def defaults_of(command: click.Command, path: Path | None) -> tuple[dict[str, Any], dict[str, str]]:
    """What stands behind arguments and environment, for click's ``default_map``: ``.env`` over the file.

    Also everything that ``.env`` says and the key that the file holds, by variable.
    """
    options = {_told(option): option for option in command.params if option.name not in ("config", "help", None)}
    in_file = read_file(path, {*options, KEY_IN_FILE}) if path is not None else {}
    dotenv = read_dotenv()
    variables: dict[str, str] = {}
    if KEY_IN_FILE in in_file:
        variables[KEY_VARIABLE] = str(in_file.pop(KEY_IN_FILE))
    variables |= dotenv
    values = {str(options[name].name): _fitting(options[name], value, path) for name, value in in_file.items()}
    for told, option in options.items():
        # As in the environment, nothing is not a value.
        if said := dotenv.get(variable(told)):
            values[str(option.name)] = said.split() if _is_multiple(option) else said
    return values, variables


def _told(option: click.Parameter) -> str:
    """How people call it in a file: ``--all`` is ``all``, whatever our code calls it."""
    return max(option.opts, key=len).removeprefix("--").replace("-", "_")


def _is_multiple(option: click.Parameter) -> bool:
    return bool(getattr(option, "multiple", False))


def _fitting(option: click.Parameter, value: Any, path: Path | None) -> Any:
    """A value of the file, if it is of the kind that the option takes; text is read as on the command line.

    :raises SettingsError: it is of another kind, which would otherwise be cut or turned into this one
    """
    if _is_multiple(option):
        values = value if isinstance(value, list) else [value]
        if all(isinstance(entry, str) for entry in values):
            return values
        kind = 'a list of texts, e.g. ["neos:designation"]'
    elif getattr(option, "is_flag", False):
        if isinstance(value, bool):
            return value
        kind = "true or false"
    elif isinstance(value, str):
        return value
    elif option.type.name.startswith(("text", "choice", "file")):
        kind = "a text in quotes"
    else:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        whole = option.type.name.startswith("integer")
        if isinstance(value, float) and not whole:
            return value
        kind = "a whole number" if whole else "a number"
    raise SettingsError(f"--config {path}: {_told(option)} = {value!r} will not do; it must be {kind}")


def api_key(variables: Mapping[str, str]) -> str | None:
    """The key: the environment's, else that of ``.env`` or the file. Empty is none.

    :raises SettingsError: it could not be sent in a header
    """
    key = os.environ.get(KEY_VARIABLE, variables.get(KEY_VARIABLE, "")).strip()
    if not all("!" <= char <= "~" for char in key):
        raise SettingsError(f"{KEY_VARIABLE} has a character that cannot be in a key; copy it again")
    return key or None


def settings_of(values: Mapping[str, Any]) -> Settings:
    """The validated settings.

    :param values: by setting; those that were not given are absent
    :raises SettingsError: the first that is wrong, by its option
    """
    try:
        return Settings(**values)
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        setting = str(error["loc"][0]) if error["loc"] else ""
        option = flag(OPTION_OF.get(setting, setting))
        said = str(error["ctx"]["error"]) if error["type"] == "value_error" else _said(error)
        raise SettingsError(f"{option}: {said}") from exc


def _said(error: Any) -> str:
    """Pydantic's words in ours."""
    given, context = error["input"], error.get("ctx", {})
    if "ge" in context:
        return f"{given} is too small; it must be at least {context['ge']}"
    if "gt" in context:
        return f"{given} is too small; it must be more than {context['gt']}"
    if "le" in context:
        return f"{given} is too large; it must be at most {context['le']}"
    return f"{given!r} will not do: {error['msg']}"


def proxy_for(host: str) -> str | None:
    """The proxy that the environment names for ``https`` to ``host``, as other programs read it."""
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - seldom needed

    proxies = getproxies()
    if proxy_bypass(host):
        return None
    return proxies.get("https") or proxies.get("all")


def ledger_path() -> Path | None:
    """The ledger of this user's quotas on this machine; None if there is no place for one."""
    home = os.environ.get("XDG_STATE_HOME", "")
    if Path(home).is_absolute():
        folder = Path(home)
    else:
        try:
            home_folder = Path.home()
        except RuntimeError:  # nobody's
            return None
        folder = home_folder / ("Library/Application Support" if sys.platform == "darwin" else ".local/state")
    return folder / "neows-async" / "quota.sqlite3"
