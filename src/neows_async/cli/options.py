"""What all commands share: options that variables can set, help in sections, errors as one line and an exit code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args, get_origin

import click
from typing_extensions import override

from neows_async.cli import output
from neows_async.cli.config import ENV_PREFIX, defaults_of
from neows_async.cli.exit_codes import exit_code_of
from neows_async.settings import Option, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REDACT: Final = "neows_async.redact"
"""In ``ctx.meta``: the function that removes the key from the text of errors."""


class _PlainEpilog(click.Command):
    @override
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.epilog:
            formatter.write(f"\n{self.epilog}\n")


class Command(_PlainEpilog):
    """A command whose epilog keeps its lines, and whose options may be set in ``.env``.

    :param sections: the options by the title under which ``--help`` lists them
    """

    def __init__(
        self, *args: Any, sections: Mapping[str, Sequence[click.Option]] | None = None, **attributes: Any
    ) -> None:
        super().__init__(*args, **attributes)
        self.sections: dict[str, Sequence[click.Option]] = dict(sections or {})
        self.params.extend(one for options in self.sections.values() for one in options)

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``.env`` behind arguments and environment. The option ``--config`` does it together with its file."""
        names = {parameter.name for parameter in self.params if isinstance(parameter, click.Option)}
        if "config" not in names and not ctx.resilient_parsing:
            ctx.default_map, _ = defaults_of(self, None)
        return super().parse_args(ctx, args)

    @override
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. An error becomes one line on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as exc:  # noqa: BLE001 - the text of any exception may hold the key
            # Redacted at the one place where every error passes.
            redact = ctx.meta.get(REDACT, str)
            as_json = ctx.params.get("log_format") == "json" or ctx.params.get("json", False)
            ctx.exit(output.error(redact(output.message_of(exc)), exit_code_of(exc), as_json=as_json))

    @override
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        in_sections = [one for options in self.sections.values() for one in options]
        others = [one for one in self.get_params(ctx) if one not in in_sections]
        for title, options in {**self.sections, "Other" if self.sections else "Options": others}.items():
            records = [record for one in options if (record := one.get_help_record(ctx)) is not None]
            with formatter.section(title):
                formatter.write_dl(records)


class Group(_PlainEpilog, click.Group):
    """A command with subcommands, whose epilog keeps its lines."""


# -- options ------------------------------------------------------------------------------------


def option(*declarations: str, **attributes: Any) -> click.Option:
    """An option that the environment, ``.env`` and the TOML file can also set. Its help names the variable."""
    [flag] = [one for one in declarations if one.startswith("--")]
    name = flag.removeprefix("--").replace("-", "_")
    return click.Option(declarations, envvar=f"{ENV_PREFIX}{name.upper()}", show_envvar=True, **attributes)


def number_option(
    flag: str, text: str, *, least: int | None = None, most: int | None = None, default: int | None = None
) -> click.Option:
    """A whole number within bounds."""
    kind = int if least is None else click.IntRange(least, most)
    return option(flag, type=kind, metavar="N", default=default, show_default=default is not None, help=text)


def setting(name: str) -> click.Option:
    """The option of the field ``name`` of :class:`~neows_async.settings.Settings`, which describes all of it.

    The option's parameter has the field's name, but for a switch that turns the field off: ``no_archive``.
    """
    field, described = Settings.model_fields[name], Settings.option(name)
    if described is None:
        raise LookupError(f"the setting {name} has no option")
    text = str(field.description)
    if field.annotation is bool:
        return _switch(name, described, text)
    attributes: dict[str, Any] = {}
    if described.default or field.default is None:
        attributes["help"] = f"{text}  [default: {described.default or 'no limit'}]"
    else:
        attributes |= {"help": text, "default": field.default, "show_default": True}
        if described.unit == "s":
            attributes["default"] = Duration.shortest(field.default)
    return option(
        described.flag,
        name,
        type=Duration() if described.unit == "s" else _value_type(field.annotation),
        multiple=get_origin(field.annotation) is tuple,
        metavar=described.metavar,
        **attributes,
    )


def _switch(name: str, described: Option, text: str) -> click.Option:
    if described.flag.startswith("--no-"):
        return option(described.flag, is_flag=True, help=f"Do not {text[0].lower()}{text[1:]}")
    return option(described.flag, name, is_flag=True, help=text)


def _value_type(annotation: Any) -> Any:
    """``int`` of ``Annotated[int, …] | None``, ``str`` of ``tuple[str, …]``. Bounds are checked by the settings."""
    first = (get_args(annotation) or (annotation,))[0]
    return get_args(first)[0] if get_origin(first) is Annotated else first


def root_option() -> click.Option:
    """The lake."""
    return option(
        "--root", metavar="URI", default="data/", show_default=True, help="The lake: a folder, or s3://bucket/prefix."
    )


def quiet_option() -> click.Option:
    """Whether to print anything but errors."""
    return option("--quiet", is_flag=True, help="Print nothing but errors.")


def log_format_option(text: str = "json: one JSON value on stdout, errors as JSON lines on stderr.") -> click.Option:
    """Text for people, or JSON for programs."""
    return option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help=text)


if TYPE_CHECKING:
    _ParamType = click.ParamType[float]
else:
    _ParamType = click.ParamType  # generic for type checkers alone, until click 8.4


class Duration(_ParamType):
    """Seconds, or a number with one of s, m, h, d."""

    name = "duration"

    _WRITTEN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|)")
    _UNIT_S: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}

    @override
    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """In seconds."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        match = self._WRITTEN.fullmatch(str(value).strip())
        if match is None:
            self.fail(
                f"{value!r} is not a duration; write seconds, or a number with s, m, h or d, e.g. 15m", param, ctx
            )
        return float(match[1]) * self._UNIT_S[match[2]]

    @classmethod
    def shortest(cls, seconds: float) -> str:
        """The shortest way to write ``seconds``: ``5m``, ``24h``."""
        for unit in ("h", "m"):
            if seconds and seconds % cls._UNIT_S[unit] == 0:
                return f"{seconds / cls._UNIT_S[unit]:g}{unit}"
        return f"{seconds:g}s"
