"""Opens an object store from a URI and from the environment variables that each cloud's users know."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from neows_async.errors import SettingsError, StorageError
from neows_async.lake.storage.aws_profile import AwsProfile
from neows_async.lake.storage.keys import folder_parts
from neows_async.lake.storage.object_store import ObjectStorage
from neows_async.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Config

# One request and its retries take less than the two minutes that AsyncStorage allows for one call.
_CONNECT: Final = timedelta(seconds=5)
_REQUEST: Final = timedelta(seconds=45)
_RETRIES: Final[RetryConfig] = {
    "max_retries": 6,
    "retry_timeout": timedelta(seconds=45),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
}
_S3_OPTIONS: Final = frozenset({"region", "endpoint_override"})


@dataclass(frozen=True, slots=True)
class ObjectUri:
    """``scheme://bucket/prefix?option=…``, checked.

    :param prefix: without slashes at its ends; may be empty
    """

    scheme: str
    bucket: str
    prefix: str
    options: Mapping[str, str]

    def __str__(self) -> str:
        query = f"?{urlencode(self.options, safe=':/')}" if self.options else ""
        return f"{self.scheme}://{self.bucket}{f'/{self.prefix}' if self.prefix else ''}{query}"

    @classmethod
    def parse(cls, uri: str) -> ObjectUri:
        """Parse ``uri``. The text of a SettingsError quotes no part that may be a secret."""
        try:
            parts = urlsplit(uri)
            options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        except ValueError:
            raise SettingsError("the root's URI is not understood; give scheme://bucket/prefix") from None
        scheme = parts.scheme.lower()
        if "@" in parts.netloc or ":" in parts.netloc:
            raise SettingsError(
                f"{scheme}://…: credentials and ports do not belong there; set the cloud's own variables"
            )
        if not parts.netloc:
            raise SettingsError(f"{scheme}:// without a bucket; give {scheme}://bucket/prefix")
        unknown = sorted(options.keys() - (_S3_OPTIONS if scheme == "s3" else frozenset()))
        if unknown or parts.fragment:
            known = " and ".join(sorted(_S3_OPTIONS)) if scheme == "s3" else "none"
            raise SettingsError(f"{scheme}://{parts.netloc}: unknown option {' '.join(unknown) or '#'}; known: {known}")
        try:
            prefix = "/".join(folder_parts(parts.path.strip("/")))
        except StorageError:
            raise SettingsError(
                f"{scheme}://{parts.netloc}{parts.path}: no prefix; give one without '.', '..', '//'"
            ) from None
        return cls(scheme, parts.netloc, prefix, options)


def open_object_storage(uri: str, *, environment: Mapping[str, str] | None = None) -> ObjectStorage:
    """The storage that ``uri`` names. Sends no request yet.

    **Reads the environment**, as the client does: for ``s3://`` the variables ``AWS_…`` and the profile files; for
    ``gs://`` ``GOOGLE_…``; for ``az://`` ``AZURE_…``; and the usual proxy variables. If an ``s3://`` root has no
    credentials, the client requests those of the container's or machine's role at its first request.

    :param environment: replaces ``os.environ`` for region and endpoint
    :raises SettingsError: the URI, an endpoint or a profile is not understood
    """
    parsed = ObjectUri.parse(uri)
    try:
        if parsed.scheme == "s3":
            store = _s3_store(parsed, os.environ if environment is None else environment)
        else:
            store = _other_store(parsed)
    except BaseError as exc:
        text = str(exc).partition("\n")[0]
        raise SettingsError(f"{parsed.scheme}://{parsed.bucket} cannot be opened: {text}") from None
    return ObjectStorage(store, str(parsed))


def s3_config(options: Mapping[str, str], environment: Mapping[str, str], profile_region: str | None) -> S3Config:
    """Region and endpoint: from the URI's options, else from the environment, else from the profile.

    :raises SettingsError: the endpoint is neither https:// nor on loopback
    """
    config: S3Config = {"disable_bulk_delete": True}  # not every store supports it, and we delete one by one
    region = (
        options.get("region")
        or environment.get("AWS_REGION")
        or environment.get("AWS_DEFAULT_REGION")
        or profile_region
    )
    if region:
        config["region"] = region
    endpoint = (
        options.get("endpoint_override")
        or environment.get("AWS_ENDPOINT_URL_S3")
        or environment.get("AWS_ENDPOINT_URL")
        or environment.get("AWS_ENDPOINT")
    )
    if endpoint:
        if "://" not in endpoint:
            endpoint = f"https://{endpoint}"
        config["endpoint"] = config["aws_endpoint_url_s3"] = endpoint
        check_endpoint(endpoint)
    return config


def check_endpoint(endpoint: str) -> bool:
    """Whether ``endpoint`` is ``http://``: allowed only on loopback, else a SettingsError."""
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname or ""
    except ValueError:
        raise SettingsError("the endpoint is no URL; give https://host") from None
    if not host or parts.username is not None or parts.password is not None or parts.query:
        raise SettingsError("the endpoint is not understood; give https://host, without credentials or options")
    if parts.scheme == "https":
        return False
    if parts.scheme == "http" and is_loopback(host):
        return True
    raise SettingsError(f"endpoint {parts.scheme}://{host}: only https:// is safe beyond this machine; use that")


def _s3_store(parsed: ObjectUri, environment: Mapping[str, str]) -> ObjectStore:
    profile = AwsProfile()
    config = s3_config(parsed.options, environment, profile.region)
    # http:// sends keys in the clear, so it needs the explicit permission that check_endpoint gives for loopback.
    plain = check_endpoint(config["endpoint"]) if "endpoint" in config else False
    return S3Store(
        parsed.bucket,
        prefix=parsed.prefix or None,
        config=config,
        client_options=_client(allow_http=plain),
        retry_config=_RETRIES,
        credential_provider=profile.credentials,
    )


def _other_store(parsed: ObjectUri) -> ObjectStore:
    kind = GCSStore if parsed.scheme == "gs" else AzureStore
    return kind(
        parsed.bucket, prefix=parsed.prefix or None, client_options=_client(allow_http=False), retry_config=_RETRIES
    )


def _client(*, allow_http: bool) -> ClientConfig:
    return {"allow_http": allow_http, "connect_timeout": _CONNECT, "timeout": _REQUEST}
