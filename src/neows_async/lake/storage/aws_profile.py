"""The AWS profile in use, read by boto3: the object store's client does not read profile files."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from neows_async.errors import SettingsError

if TYPE_CHECKING:
    from obstore.store import S3CredentialProvider

_FILES: Final = (("AWS_CONFIG_FILE", "~/.aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"))
# AWS's tools prefer these variables to a profile, and the client reads them itself.
_STRONGER: Final = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE")
# These need requests. The client sends them when it has no credentials, at its first request.
_ROLES: Final = ("container-role", "iam-role")


class AwsProfile:
    """The profile that ``AWS_PROFILE`` names, or ``default``. **Reads the environment** and the profile files.

    Without profile files and without ``AWS_PROFILE`` both attributes are None, and boto3 is not imported.

    :raises SettingsError: boto3 is missing, or the profile does not exist, cannot be read, or gives no credentials
    """

    region: str | None = None
    credentials: S3CredentialProvider | None = None
    """None if the profile has none, or the environment has better ones: then the client searches by itself."""

    def __init__(self) -> None:
        name = os.environ.get("AWS_PROFILE")
        if not name and not any(Path(os.environ.get(*file)).expanduser().is_file() for file in _FILES):
            return
        try:
            session: Any = import_module("botocore.session").Session(profile=name)
            self.region = session.get_config_variable("region")
            if any(os.environ.get(variable) for variable in _STRONGER):
                return
            for role in _ROLES:
                session.get_component("credential_provider").remove(role)
            if session.get_credentials() is not None:
                self.credentials = import_module("obstore.auth.boto3").Boto3CredentialProvider(session)
        except ImportError:
            raise SettingsError("an AWS profile needs boto3; install neows-async[s3]") from None
        except Exception as exc:  # noqa: BLE001 - botocore's errors, whose causes may quote a key
            named = f"AWS profile {name or 'default'}"
            raise SettingsError(f"{named} cannot be used ({type(exc).__name__}); correct it, or log in again") from None
