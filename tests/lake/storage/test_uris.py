"""Which storage a URI names, and what of the environment has a say."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from neows_async.errors import SettingsError
from neows_async.lake.storage import location, open_storage
from neows_async.lake.storage.aws_profile import credential_provider
from neows_async.lake.storage.local import LocalStorage
from neows_async.lake.storage.uris import ObjectUri, open_object_storage, s3_config

if TYPE_CHECKING:
    from pathlib import Path

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
def test_what_is_not_understood_is_told_with_what_is(uri: str) -> None:
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
def test_other_clouds_are_opened_without_asking_them(uri: str) -> None:
    assert open_object_storage(uri, environment={"HOME": "/none"}).uri == uri


def test_a_cloud_that_lacks_a_setting_says_which() -> None:
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
def test_a_wrong_uri_is_told_without_its_secrets(uri: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        open_object_storage(uri, environment={"HOME": "/none"})
    assert "SECRET" not in str(caught.value).replace("SECRETS", "")


def test_a_uri_is_written_as_it_was_read() -> None:
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
    tmp_path: Path, options: dict[str, str], environment: dict[str, str], region: str, endpoint: str | None
) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[default]\nregion = eu-west-9\n")
    config = s3_config(options, {"HOME": str(tmp_path), **environment})
    assert config.get("region") == region
    assert config.get("endpoint") == endpoint


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = AK1\naws_secret_access_key = SK1\n"
        "[lake]\naws_access_key_id=AK2\naws_secret_access_key=SK2%with=signs\naws_session_token=T2\n"
    )
    (tmp_path / ".aws" / "config").write_text(
        "[default]\nregion = r1\n[profile lake]\nregion = r2\ns3 =\n  max_concurrent_requests = 20\n"
        "[profile sso]\nsso_session = my\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, ("AK1", "SK1", None)),
        ({"AWS_PROFILE": "lake"}, ("AK2", "SK2%with=signs", "T2")),
        ({"AWS_ACCESS_KEY_ID": "AK3"}, None),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/t"}, None),
        ({"AWS_SHARED_CREDENTIALS_FILE": "/none", "AWS_CONFIG_FILE": "/none"}, None),
    ],
)
def test_a_profile_gives_credentials_unless_the_environment_does(
    home: Path, environment: dict[str, str], found: tuple[str, str, str | None] | None
) -> None:
    provider = credential_provider(environment, home)
    if found is None:
        assert provider is None
        return
    assert provider is not None
    assert provider() == dict(
        zip(("access_key_id", "secret_access_key", "token", "expires_at"), (*found, None), strict=True)
    )


def test_a_profile_that_is_not_there_is_told(home: Path) -> None:
    with pytest.raises(SettingsError, match="AWS_PROFILE names other"):
        credential_provider({"AWS_PROFILE": "other"}, home)


def test_a_profile_that_takes_a_login_needs_the_library_for_it(home: Path) -> None:
    with pytest.raises(SettingsError, match=r"sso .*boto3|sso gives no credentials"):
        credential_provider({"AWS_PROFILE": "sso"}, home)


def test_a_profile_file_that_is_none_is_told_without_its_lines(home: Path) -> None:
    (home / ".aws" / "credentials").write_text("SECRET without a section\n")
    with pytest.raises(SettingsError, match="no AWS profile file") as caught:
        credential_provider({}, home)
    assert "SECRET" not in str(caught.value)


def test_without_the_extra_an_object_store_says_what_to_install() -> None:
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
def test_other_programs_get_the_place_without_the_query(uri: str, place: str) -> None:
    assert location(uri) == place
