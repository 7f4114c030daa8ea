"""Where a cache lies: what is understood, what is refused, and what never reaches a log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import InputError
from store.remote.location import Location, redacted

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "protocol", "url", "pin"),
    [
        ("s3://bucket/x.zarr", "s3", "s3://bucket/x.zarr", ""),
        (f"s3://bucket/x.zarr@sha256:{DIGEST}", "s3", "s3://bucket/x.zarr", f"sha256:{DIGEST}"),
        ("gs://bucket@v1", "gs", "gs://bucket", "v1"),
        ("hf://datasets/team/msrvtt@v1", "hf", "hf://datasets/team/msrvtt", "v1"),
        ("sftp://anna@host:2022/caches/x.zarr@v1", "sftp", "sftp://anna@host:2022/caches/x.zarr", "v1"),
        ("sftp://anna@host", "sftp", "sftp://anna@host", ""),
        ("https://host/x.zarr/", "http", "https://host/x.zarr", ""),
        ("file:///shared/x.zarr@v1", "file", "/shared/x.zarr", "v1"),
        ("/shared/x.zarr", "file", "/shared/x.zarr", ""),
    ],
)
def test_a_location_is_a_protocol_a_url_and_a_pin(text, protocol, url, pin):
    found = Location.parse(text)
    assert (found.protocol, found.url, found.pin) == (protocol, url, pin)
    assert found.digest == (DIGEST if pin.startswith("sha256:") else None)
    assert found.tag == ("v1" if pin == "v1" else None)


def test_a_folder_whose_name_has_an_at_sign_is_that_folder(tmp_path):
    (tmp_path / "x@v1").mkdir()
    assert Location.parse(str(tmp_path / "x@v1")) == Location("file", str(tmp_path / "x@v1"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ftp://host/x.zarr", "ftp:// is not spoken here"),
        ("https://anna:hush@host/x.zarr", "credentials come from the environment"),
        ("s3://key:hush@bucket/x.zarr", "credentials come from the environment"),
        ("sftp://anna:hush@host/x.zarr", "credentials come from the environment"),
        ("https://host/x.zarr?sig=hush", "with a query behind it"),
        ("hf://team/msrvtt", "is hf://datasets/OWNER/NAME"),
        ("s3://", "names no place"),
        ("", "not nothing"),
    ],
)
def test_what_is_no_place_or_holds_a_secret_is_refused_without_telling_it(text, problem):
    with pytest.raises(InputError) as error:
        Location.parse(text)
    assert problem in str(error.value)
    assert "hush" not in str(error.value)


def test_a_location_as_text_names_no_user():
    found = Location.parse("sftp://anna@host/x.zarr@v1")
    assert str(found) == "sftp://host/x.zarr@v1"
    assert "anna" not in repr(found)


SECRET = st.text("abcdefXYZ0123456789%+-_", min_size=1).map(lambda text: f"hush{text}")


@given(SECRET, SECRET)
def test_messages_of_libraries_lose_users_passwords_and_queries(user, secret):
    told = (
        f"GET https://{user}:{secret}@host/x/c/0?X-Amz-Signature={secret}&a=b failed, "
        f"url='sftp://{user}@host/x' ('s3://bucket/x?token={secret}')"
    )
    assert redacted(told) == "GET https://host/x/c/0 failed, url='sftp://host/x' ('s3://bucket/x')"
