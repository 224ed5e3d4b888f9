"""AWS profiles: ``~/.aws/credentials`` and ``~/.aws/config``, which the client beneath does not read."""

from __future__ import annotations

import configparser
from importlib import import_module
from typing import TYPE_CHECKING, Final

from neows_async.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from obstore.store import S3Credential, S3CredentialProvider

# What AWS's own tools prefer to a profile, and the client beneath reads by itself.
_STRONGER: Final = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE")
# A profile with one of these says how to get credentials, which takes AWS's own library.
_INDIRECT: Final = (
    "role_arn",
    "sso_session",
    "sso_start_url",
    "credential_process",
    "web_identity_token_file",
    "login_session",
)


def profile_region(environment: Mapping[str, str], home: Path) -> str | None:
    """The region of the profile in use.

    :raises SettingsError: ``AWS_PROFILE`` names none, or a file cannot be read
    """
    return _profile(environment, home).get("region")


def credential_provider(environment: Mapping[str, str], home: Path) -> S3CredentialProvider | None:
    """The credentials of the profile in use, or None when the client is to look for itself.

    :raises SettingsError: the profile cannot be read, or it takes boto3, which is not installed
    """
    if any(environment.get(name) for name in _STRONGER):
        return None
    profile = _profile(environment, home)
    if "aws_access_key_id" in profile and "aws_secret_access_key" in profile:
        credential: S3Credential = {
            "access_key_id": profile["aws_access_key_id"],
            "secret_access_key": profile["aws_secret_access_key"],
            "token": profile.get("aws_session_token"),
            "expires_at": None,
        }
        return lambda: credential
    if any(option in profile for option in _INDIRECT):
        return _through_boto3(_name(environment))
    return None


def _through_boto3(name: str) -> S3CredentialProvider:
    try:
        session = import_module("boto3").Session(profile_name=name)
        provider: S3CredentialProvider = import_module("obstore.auth.boto3").Boto3CredentialProvider(session)
    except ImportError:
        raise SettingsError(
            f"AWS profile {name} gets its credentials by a role, login or program, which takes boto3: install boto3"
        ) from None
    except Exception as exc:  # botocore's errors are not importable without it
        raise SettingsError(f"AWS profile {name} gives no credentials ({type(exc).__name__}); log in anew") from exc
    return provider


def _name(environment: Mapping[str, str]) -> str:
    return environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE") or "default"


def _profile(environment: Mapping[str, str], home: Path) -> dict[str, str]:
    name = _name(environment)
    config = _read(environment.get("AWS_CONFIG_FILE"), home / ".aws" / "config", home)
    keys = _read(environment.get("AWS_SHARED_CREDENTIALS_FILE"), home / ".aws" / "credentials", home)
    found: dict[str, str] = {}
    for parser, section in ((config, name), (config, f"profile {name}"), (keys, name)):
        if parser.has_section(section):
            found.update(parser.items(section))
    if not found and environment.get("AWS_PROFILE"):
        raise SettingsError(f"AWS_PROFILE names {name}, which is in neither profile file; correct it or unset it")
    return found


def _read(named: str | None, usual: Path, home: Path) -> configparser.RawConfigParser:
    path = home.joinpath(named.removeprefix("~/")) if named else usual
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as exc:
        raise SettingsError(f"{path}: {exc.strerror}; make it readable or unset AWS_PROFILE") from exc
    except (configparser.Error, UnicodeDecodeError):
        # Their texts quote lines of the file, and so perhaps a key.
        raise SettingsError(f"{path} is no AWS profile file; repair it") from None
    return parser
