"""The site's settings from environment variables. The library reads no environment, so the application does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field

from neows_async import NASA_URL, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX = "NEO_SITE_"


class Config(BaseModel):
    """One site's settings: ``NEO_SITE_PORT`` sets ``port``.

    :param api_key: ``NASA_API_KEY``; without it, a sandbox replaces NASA, and the objects are synthetic
    :param root: holds separate folders for synthetic and for real catalogues
    :param refresh_every_s: seconds from a committed catalogue to the next refresh
    :param retry_after_s: seconds from a failed refresh to the next
    :param keep: the number of catalogues to keep in the lake
    :param limit: read only the first objects, this many; None is all
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65_535)
    api_key: str | None = Field(None, repr=False)
    base_url: str = NASA_URL
    root: str = "data/service"
    refresh_every_s: float = Field(86_400.0, gt=0)
    retry_after_s: float = Field(60.0, gt=0)
    keep: int = Field(3, ge=1)
    limit: int | None = Field(None, ge=1)
    sandbox_neos: int = Field(4_000, ge=1)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read ``NEO_SITE_…`` and ``NASA_API_KEY``; an unknown variable ``NEO_SITE_…`` is an error."""
        values = {
            name.removeprefix(_PREFIX).lower(): value
            for name, value in environment.items()
            if name.startswith(_PREFIX) and name != f"{_PREFIX}API_KEY"
        }
        return cls.model_validate({**values, "api_key": environment.get("NASA_API_KEY") or None})

    @property
    def synthetic(self) -> bool:
        """Whether the objects are made up."""
        return self.api_key is None

    def settings(self) -> Settings:
        """The settings of each run."""
        folder = "sandbox" if self.synthetic else "nasa"
        return Settings.model_validate(
            {
                "root": f"{self.root.rstrip('/')}/{folder}",
                "limit": self.limit,
                "base_url": self.base_url,
                "api_key": self.api_key,
            }
        )
