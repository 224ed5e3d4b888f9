"""What every command has in common: how its options are named, and how its help looks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from typing_extensions import override

_F = TypeVar("_F", bound=Callable[..., object])


class Command(click.Command):
    """A command whose epilog keeps its lines, and whose options may stand in ``.env``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``.env`` behind arguments and environment; a command with ``--config`` does it together with the file."""
        names = {parameter.name for parameter in self.params if isinstance(parameter, click.Option)}
        if "config" not in names and not ctx.resilient_parsing and Path(".env").exists():
            from neows_async.cli.configuration import defaults_of  # noqa: PLC0415 - heavy, and most do without

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
