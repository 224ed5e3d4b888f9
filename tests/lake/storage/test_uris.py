"""Opening a storage by its URI, with the environment and AWS profiles."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from typing import TYPE_CHECKING, cast

import pytest

from neows_async.errors import SettingsError, StorageError
from neows_async.lake.storage import location, open_storage
from neows_async.lake.storage.aws_profile import AwsProfile
from neows_async.lake.storage.local import LocalStorage
from neows_async.lake.storage.uris import ObjectUri, open_object_storage, s3_config

if TYPE_CHECKING:
    from pathlib import Path

    from obstore.store import S3Credential

    from tests.lake.storage.seaweedfs import SeaweedFS


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}", "file://localhost{}", "FILE://{}"])
def test_a_folder_is_named_by_path_or_uri(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "a lake"
    storage = open_storage(form.format(folder if form.startswith("{") else str(folder).replace(" ", "%20")))
    assert isinstance(storage, LocalStorage)
    storage.put("a", b"1")
    assert (folder / "a").read_bytes() == b"1"


@pytest.mark.parametrize(
    "uri", ["", "file:data", "file://data/", "file:///a?b=c", "s3:bucket", "ftp://host/x", "s4://b"]
)
def test_an_unknown_uri_is_refused_with_the_known_forms(uri: str) -> None:
    with pytest.raises(SettingsError, match="file:///"):
        open_storage(uri)


def test_an_object_store_is_named_by_its_uri(s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    uri = s3.uri("by/uri")
    storage = open_storage(uri)
    assert storage.uri == uri
    storage.create("a", b"1")
    assert storage.get("a") == b"1"
    assert [info.key for info in open_storage(s3.uri("by")).list("")] == ["uri/a"]
    storage.delete("a")


@pytest.mark.parametrize("uri", ["gs://bucket/lake", "s3://bucket", "s3://bucket/lake?region=eu-west-1"])
def test_opening_an_object_store_sends_no_request(uri: str) -> None:
    assert open_object_storage(uri, environment={}).uri == uri


def test_a_missing_setting_of_a_cloud_is_named() -> None:
    with pytest.raises(SettingsError, match=r"az://box cannot be opened: .*[Aa]ccount"):
        open_storage("az://box/lake")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("s3:///lake", "without a bucket"),
        ("s3://KEY:SECRET@bucket/lake", "credentials"),
        ("s3://bucket/lake?secret_access_key=SECRET", "unknown option secret_access_key"),
        ("s3://bucket/lake?SECRET", "not understood"),
        ("s3://bucket/lake#SECRET", "unknown option"),
        ("s3://bucket/../SECRETS", "no prefix"),
        ("gs://bucket/lake?region=SECRET", "unknown option region"),
        ("s3://bucket?endpoint_override=https://KEY:SECRET@host", "without credentials"),
        ("s3://bucket?endpoint_override=http://minio.example:9000", "only https:// is safe"),
        ("s3://bucket?endpoint_override=ftp://127.0.0.1", "only https:// is safe"),
        ("s3://bucket?endpoint_override=https://", "the endpoint is not understood"),
    ],
)
def test_a_wrong_uri_is_refused_without_its_secrets(uri: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        open_object_storage(uri, environment={})
    assert "SECRET" not in str(caught.value).replace("SECRETS", "")


def test_a_parsed_uri_is_written_as_it_was_given() -> None:
    text = "s3://bucket/a/b?region=us-east-1&endpoint_override=http://127.0.0.1:8333"
    assert str(ObjectUri.parse(text)) == text
    assert str(ObjectUri.parse("s3://bucket/")) == "s3://bucket"


@pytest.mark.parametrize(
    ("options", "environment", "region", "endpoint"),
    [
        ({}, {}, "eu-west-9", None),
        ({}, {"AWS_DEFAULT_REGION": "b", "AWS_ENDPOINT_URL": "https://b"}, "b", "https://b"),
        ({}, {"AWS_REGION": "a", "AWS_DEFAULT_REGION": "b", "AWS_ENDPOINT_URL_S3": "c.example"}, "a", "https://c.example"),
        ({"region": "x", "endpoint_override": "http://[::1]:1"}, {"AWS_REGION": "a", "AWS_ENDPOINT": "b"}, "x", "http://[::1]:1"),
    ],
)  # fmt: skip
def test_the_uri_comes_before_the_environment_and_that_before_the_profile(
    options: dict[str, str], environment: dict[str, str], region: str, endpoint: str | None
) -> None:
    config = s3_config(options, environment, "eu-west-9")
    assert config.get("region") == region
    assert config.get("endpoint") == endpoint


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with AWS profiles, and no variable of AWS in the environment."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = AK1\naws_secret_access_key = SK1\n"
        "[lake]\naws_access_key_id=AK2\naws_secret_access_key=SK2%with=signs\naws_session_token=T2\n"
    )
    (tmp_path / ".aws" / "config").write_text(
        "[default]\nregion = r1\n[profile lake]\nregion = r2\ns3 =\n  max_concurrent_requests = 20\n"
        "[profile program]\ncredential_process = false\n"
        "[profile login]\nsso_start_url = https://localhost:1\nsso_region = r\nsso_account_id = 1\nsso_role_name = r\n"
        "[profile region-only]\nregion = r3\n"
    )
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "region", "found"),
    [
        ({}, "r1", ("AK1", "SK1", None)),
        ({"AWS_PROFILE": "lake"}, "r2", ("AK2", "SK2%with=signs", "T2")),
        ({"AWS_PROFILE": "region-only"}, "r3", None),
        ({"AWS_ACCESS_KEY_ID": "AK3"}, "r1", None),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/t"}, "r1", None),
        ({"AWS_SHARED_CREDENTIALS_FILE": "/none", "AWS_CONFIG_FILE": "/none"}, None, None),
    ],
)
@pytest.mark.usefixtures("home")
def test_a_profile_gives_region_and_credentials_unless_the_environment_does(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    region: str | None,
    found: tuple[str, str, str | None] | None,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    profile = AwsProfile()
    assert profile.region == region
    if found is None:
        assert profile.credentials is None
        return
    assert profile.credentials is not None
    credential = cast("S3Credential", profile.credentials())
    assert (credential["access_key_id"], credential["secret_access_key"], credential["token"]) == found


def test_a_store_signs_its_requests_with_the_credentials_of_the_profile(
    s3: SeaweedFS, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {name.lower(): value for name, value in s3.environment.items() if "KEY" in name}
    lines = "".join(f"{name} = {value}\n" for name, value in keys.items())
    (home / ".aws" / "credentials").write_text(f"[seaweed]\n{lines}")
    monkeypatch.setenv("AWS_PROFILE", "seaweed")
    storage = open_storage(s3.uri("by/profile"))
    storage.put("a", b"1")
    assert storage.get("a") == b"1"
    storage.delete("a")


@pytest.mark.parametrize("profile", ["other", "program"])
@pytest.mark.usefixtures("home")
def test_a_profile_that_does_not_exist_or_gives_no_credentials_is_named(
    monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    monkeypatch.setenv("AWS_PROFILE", profile)
    with pytest.raises(SettingsError, match=f"AWS profile {profile} cannot be used"):
        open_storage("s3://bucket/lake")


@pytest.mark.usefixtures("home")
def test_a_profile_that_needs_a_login_says_so_at_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "login")
    storage = open_storage("s3://bucket/lake?endpoint_override=http://127.0.0.1:9")
    with pytest.raises(StorageError, match="the AWS profile gives no credentials; log in again"):
        storage.get("a")


def test_an_unreadable_profile_file_is_refused_without_its_lines(home: Path) -> None:
    (home / ".aws" / "credentials").write_text("SECRET without a section\n")
    with pytest.raises(SettingsError, match="AWS profile default cannot be used") as caught:
        AwsProfile()
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.usefixtures("home")
def test_a_profile_without_boto3_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("botocore", "botocore.session"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsError, match=r"an AWS profile needs boto3; install neows-async\[s3\]"):
        AwsProfile()


def test_boto3_is_not_imported_without_a_profile(tmp_path: Path) -> None:
    code = (
        "import sys; from neows_async.lake.storage import open_storage; open_storage('s3://bucket/lake')\n"
        "print(*sorted({'boto3', 'botocore'} & set(sys.modules)))"
    )
    environment = {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == ""


def test_an_object_store_without_the_extra_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['obstore'] = None; sys.modules['obstore.exceptions'] = None\n"
        "from neows_async.lake.storage import open_storage\n"
        "try: open_storage('s3://bucket')\n"
        "except Exception as exc: print(type(exc).__name__, exc)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ("SettingsError s3:// needs a package that is not installed; install neows-async[s3]\n")


def test_a_folder_needs_no_extra_package() -> None:
    code = "import sys; import neows_async.lake.storage; print(*sorted({'obstore', 'boto3'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("data/", "data"),
        ("is it here?", "is it here?"),
        ("s3://bucket/prefix/?region=us-east-1&endpoint_override=http://127.0.0.1:8333", "s3://bucket/prefix"),
        ("s3://bucket?region=us-east-1", "s3://bucket"),
        ("file:///srv/lake/", "file:///srv/lake"),
    ],
)
def test_location_is_without_the_options(uri: str, place: str) -> None:
    assert location(uri) == place
