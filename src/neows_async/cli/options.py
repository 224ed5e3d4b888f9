"""What every command has in common: how its options are named, and how its help looks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from typing_extensions import override

_F = TypeVar("_F", bound=Callable[..., object])


class Command(click.Command):
    """A command whose epilog keeps its lines, and whose options may stand in ``.env``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``.env`` behind arguments and environment; a command with ``--config`` does it together with the file."""
        names = {parameter.name for parameter in self.params if isinstance(parameter, click.Option)}
        if "config" not in names and not ctx.resilient_parsing and Path(".env").exists():
            from neows_async.cli.config import defaults_of  # noqa: PLC0415 - heavy, and most do without

            values, _ = defaults_of(self, None)
            ctx.default_map = {name: value for name, value in values.items() if name in names}
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """As it stands."""
        if self.epilog:
            formatter.write(f"\n{self.epilog}\n")


class Group(click.Group):
    """A command that has commands beneath it; its epilog keeps its lines too."""

    @override
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As it stands."""
        if self.epilog:
            formatter.write(f"\n{self.epilog}\n")


def option(*declarations: str, **attributes: Any) -> Callable[[_F], _F]:
    """An option that can also come from the environment and the file; its help names the variable."""
    name = max(declarations, key=len).removeprefix("--").replace("-", "_")
    return click.option(*declarations, envvar=f"NEOWS_{name.upper()}", show_envvar=True, **attributes)


def root_option() -> Callable[[_F], _F]:
    """Which lake."""
    return option(
        "--root", metavar="URI", default="data/", show_default=True, help="The lake: a folder, or s3://bucket/prefix."
    )


def quiet_option() -> Callable[[_F], _F]:
    """Whether to speak when all is well."""
    return option("--quiet", is_flag=True, help="Print nothing but errors.")


def log_format_option() -> Callable[[_F], _F]:
    """For people or for machines."""
    return option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="json: one JSON value on stdout, errors as JSON lines on stderr.",
    )


if TYPE_CHECKING:
    _ParamType = click.ParamType[float]
else:
    _ParamType = click.ParamType  # generic for type checkers alone, until click 8.4

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|)")
_UNIT_S: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


class Duration(_ParamType):
    """Seconds, or a number with one of s, m, h, d."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """In seconds."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        match = _DURATION.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no duration; write seconds, or a number with s, m, h or d, e.g. 15m", param, ctx)
        return float(match[1]) * _UNIT_S[match[2]]


def told(seconds: float) -> str:
    """The shortest way to write so many seconds."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNIT_S[unit] == 0:
            return f"{seconds / _UNIT_S[unit]:g}{unit}"
    return f"{seconds:g}s"
