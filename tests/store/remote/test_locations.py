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
        (
            f"http://127.0.0.1:9000/x.zarr@sha256:{DIGEST}",
            "http",
            "http://127.0.0.1:9000/x.zarr",
            f"sha256:{DIGEST}",
        ),
        ("http://[::1]:9000/x.zarr@v1", "http", "http://[::1]:9000/x.zarr", "v1"),
        ("https://host/@team/x.zarr@v1", "http", "https://host/@team/x.zarr", "v1"),
        ("S3://bucket@v1", "s3", "s3://bucket", "v1"),
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
        ("SFTP://anna:12@host", "credentials come from the environment"),
        ("s3://AKIAX:hush/def@bucket/x.zarr", "credentials come from the environment"),
        ("s3://AKIAX:123/hush@bucket", "credentials come from the environment"),
        ("https://user:p/hush@host/x", "credentials come from the environment"),
        ("https://user:123/hush@host/x", "credentials come from the environment"),
        ("https://user:/hush@host", "credentials come from the environment"),
        ("https://:p/hush@host/x", "credentials come from the environment"),
        ("https://user:12?hush@host/x", "credentials come from the environment"),
        ("https://hush@host/x", "credentials come from the environment"),
        ("sftp://anna:se/hush@host/x", "credentials come from the environment"),
        ("gs://bucket:12/hush", "credentials come from the environment"),
        ("https://host/x#hush", "with a query behind it"),
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


LETTERS = "abcdefXYZ0123456789%+-_"
USER = st.text(LETTERS, min_size=1).map(lambda text: f"anna{text}")
SECRET = st.builds(
    "{}hush{}".format, st.text(f"{LETTERS}/=:@", max_size=4), st.text(f"{LETTERS}/=:@", max_size=20)
)
PINS = ("", "@v1", f"@sha256:{DIGEST}")


@given(st.sampled_from(["s3", "gs", "hf", "sftp", "http", "HTTPS"]), USER, SECRET, st.sampled_from(PINS))
def test_a_url_with_a_password_is_refused_without_telling_it(protocol, user, secret, pin):
    with pytest.raises(InputError, match="credentials come from the environment") as error:
        Location.parse(f"{protocol}://{user}:{secret}@host/x.zarr{pin}")
    assert "hush" not in str(error.value)
    assert "anna" not in str(error.value)


@given(USER, SECRET)
def test_messages_of_libraries_lose_users_passwords_and_queries(user, secret):
    told = (
        f"GET https://{user}:{secret}@host/x/c/0?X-Amz-Signature={secret}&a=b failed, "
        f"url='sftp://{user}@host/x' ('s3://bucket/x?token={secret}')"
    )
    assert redacted(told) == "GET https://host/x/c/0 failed, url='sftp://host/x' ('s3://bucket/x')"


@pytest.mark.parametrize("pin", PINS)
def test_messages_keep_ports_and_pins(pin):
    for url in ("http://127.0.0.1:9000/x.zarr", "http://[::1]:9000/x.zarr", "sftp://host:22/x.zarr"):
        assert redacted(f"{url}{pin}: ends at byte 3") == f"{url}{pin}: ends at byte 3"
