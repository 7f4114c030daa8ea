"""A cache is signed by whom the user trusts, or the user is told in one line why not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from store.errors import CacheError, InputError, MissingFileError, SignatureError
from store.signing import NAMESPACE, sign, signature_path, verify
from store.untrusted import is_plain_path

DIGEST, OTHER = "ab" * 32, "cd" * 32

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


def make_key(folder: Path, name: str, passphrase: str = "", comment: str = "a colleague") -> Path:
    key = folder / name
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", comment, "-f", str(key)]
    subprocess.run(command, check=True)
    return key


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return make_key(folder, "mine"), make_key(folder, "theirs")


@pytest.fixture(scope="module")
def signature(keys: tuple[Path, Path]) -> bytes:
    return sign(DIGEST, keys[0])


def assert_one_line(error: pytest.ExceptionInfo[CacheError]) -> str:
    said = str(error.value)
    assert "\n" not in said
    return said


def test_what_a_key_signed_its_public_key_verifies(keys, signature):
    assert verify(DIGEST, signature, public(keys[0])).startswith("a_colleague (ED25519 key SHA256:")


def test_one_of_several_public_keys_is_enough(keys, signature, tmp_path):
    both = tmp_path / "team.pub"
    both.write_text(f"# the team\n\n{public(keys[1]).read_text()}{public(keys[0]).read_text()}")
    assert "ED25519" in verify(DIGEST, signature, both)


def test_an_allowed_signers_file_names_who_signed(keys, signature, tmp_path):
    kind, key, _ = public(keys[0]).read_text().split(" ", 2)
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(f'ann@example.org,ann namespaces="git,{NAMESPACE}" {kind} {key}\n')
    assert verify(DIGEST, signature, allowed).startswith("ann@example.org (")


def test_allowed_for_commits_alone_is_not_allowed_for_caches(keys, signature, tmp_path):
    kind, key, _ = public(keys[0]).read_text().split(" ", 2)
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(f'ann@example.org namespaces="git" {kind} {key}\n')
    with pytest.raises(SignatureError, match=r"refuses: .*not permitted"):
        verify(DIGEST, signature, allowed)


def test_an_expired_key_is_refused(keys, signature, tmp_path):
    kind, key, _ = public(keys[0]).read_text().split(" ", 2)
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(f'ann@example.org valid-before="20200101" {kind} {key}\n')
    with pytest.raises(SignatureError, match="no longer allows"):
        verify(DIGEST, signature, allowed)


def test_another_key_is_refused_and_named(keys, signature):
    with pytest.raises(SignatureError, match="is signed by ED25519 key SHA256:") as error:
        verify(DIGEST, signature, public(keys[1]))
    assert "theirs.pub does not name" in assert_one_line(error)


def test_the_signature_of_another_cache_is_refused(keys, signature):
    with pytest.raises(SignatureError, match="damaged or of another cache") as error:
        verify(OTHER, signature, public(keys[0]))
    assert_one_line(error)


@pytest.mark.parametrize("place", [40, 120, 200])
def test_a_damaged_signature_is_refused(keys, signature, place):
    flipped = b"A" if signature[place : place + 1] != b"A" else b"B"
    damaged = signature[:place] + flipped + signature[place + 1 :]
    with pytest.raises(SignatureError) as error:
        verify(DIGEST, damaged, public(keys[0]))
    assert_one_line(error)


@pytest.mark.parametrize("content", [b"", b"not a signature", b"\xff\x00" * 100_000])
def test_what_is_no_signature_is_refused(keys, content):
    with pytest.raises(SignatureError, match="damaged") as error:
        verify(DIGEST, content, public(keys[0]))
    assert_one_line(error)


def test_a_signature_for_another_purpose_is_refused(keys, tmp_path):
    made = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(keys[0])],
        input=f"sha256:{DIGEST}\n".encode(),
        capture_output=True,
        check=True,
    )
    with pytest.raises(SignatureError, match="namespace"):
        verify(DIGEST, made.stdout, public(keys[0]))


def test_a_key_with_a_passphrase_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    locked = make_key(tmp_path, "locked", passphrase="a long secret")
    with pytest.raises(InputError, match="wants its passphrase; load it with ssh-add") as error:
        sign(DIGEST, locked)
    assert_one_line(error)


def test_a_key_that_all_may_read_is_refused_with_the_reason(tmp_path):
    key = make_key(tmp_path, "open")
    key.chmod(0o644)
    with pytest.raises(InputError, match="too open") as error:
        sign(DIGEST, key)
    assert "@@" not in assert_one_line(error)


def test_what_is_no_key_is_refused(tmp_path, keys, signature):
    (tmp_path / "notes.txt").write_text("no key")
    with pytest.raises(InputError, match="can't sign with it"):
        sign(DIGEST, tmp_path / "notes.txt")
    with pytest.raises(SignatureError, match=r"notes\.txt does not name"):
        verify(DIGEST, signature, tmp_path / "notes.txt")
    (tmp_path / "empty.pub").write_text("")
    with pytest.raises(InputError, match="no key in it"):
        verify(DIGEST, signature, tmp_path / "empty.pub")
    with pytest.raises(InputError, match="that is a private key"):
        verify(DIGEST, signature, keys[0])


def test_a_missing_key_and_a_missing_program_say_what_to_do(tmp_path, keys, monkeypatch):
    with pytest.raises(MissingFileError, match="there is no key"):
        sign(DIGEST, tmp_path / "none")
    with pytest.raises(MissingFileError, match="there is no file"):
        verify(DIGEST, b"", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingFileError, match="install it"):
        sign(DIGEST, keys[0])


def test_anybody_can_check_a_signature_without_our_code(keys, signature, tmp_path):
    kind, key, _ = public(keys[0]).read_text().split(" ", 2)
    (tmp_path / "allowed_signers").write_text(f"ann {kind} {key}\n")
    (tmp_path / "digest.sig").write_bytes(signature)
    command = ["ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-I", "ann", "-f", "allowed_signers", "-s"]
    line = f"sha256:{DIGEST}\n".encode()
    subprocess.run([*command, "digest.sig"], input=line, cwd=tmp_path, check=True)


def test_only_a_digest_is_signed(keys):
    with pytest.raises(InputError, match="no digest of a cache"):
        sign("latest", keys[0])


def test_the_signature_of_each_state_has_its_own_plain_path():
    assert is_plain_path(signature_path(DIGEST))
    assert signature_path(DIGEST) != signature_path(OTHER)
