"""Who may share a cache, and who vouches for one."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from store.__main__ import build_parser
from store.cli import run_cli
from store.errors import IdentityError, NotShareableError, SignatureError
from store.inputs.datasets import find_dataset
from store.reader import open_cache
from store.remote.pull import pull
from store.remote.push import Terms, push
from store.remote.selection import Wanted
from store.sharing import STATED, default_terms, require_shareable, state_terms
from store.verify import verify
from tests.conftest import ROOT
from tests.store.remote.conftest import add_teacher, at


@pytest.fixture
def keys(tmp_path):
    """A private SSH key of Anna and one of a stranger; `.pub` beside each."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed here")
    for name in ("anna", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(tmp_path / name)],
            check=True,
        )
    return tmp_path


def test_a_cache_whose_card_forbids_sharing_stays_at_home_unless_one_may(cache, tmp_path, capsys):
    state_terms(cache, None, "no")
    shared = tmp_path / "shared.zarr"
    with pytest.raises(NotShareableError, match="--i-may"):
        push(cache, at(str(shared)))
    assert not shared.exists()
    assert run_cli(build_parser(), ["push", str(cache), str(shared), "--i-may"]) == 0
    pull(at(str(shared)), tmp_path / "copy.zarr", Wanted())
    with pytest.raises(NotShareableError):  # what was said of it goes along
        push(tmp_path / "copy.zarr", at(str(tmp_path / "further.zarr")))


def test_a_signed_state_is_pulled_by_those_who_trust_its_signer(cache, keys, tmp_path, capsys):
    shared = str(tmp_path / "shared.zarr")
    push(cache, at(shared), Terms(key=keys / "anna"))
    command = ["pull", shared, str(tmp_path / "copy.zarr"), "--verify"]
    assert run_cli(build_parser(), [*command, str(keys / "anna.pub")]) == 0
    assert "signed by anna" in capsys.readouterr().out
    assert verify(tmp_path / "copy.zarr").count == 0


def test_a_state_that_another_signed_or_nobody_is_refused_before_it_is_brought(cache, keys, tmp_path):
    shared = str(tmp_path / "shared.zarr")
    push(cache, at(shared), Terms(key=keys / "stranger"))
    with pytest.raises(SignatureError, match="is signed by"):
        pull(at(shared), tmp_path / "copy.zarr", Wanted(), trusted=keys / "anna.pub")
    signed = open_cache(cache).digest
    push(add_teacher(cache, "second"), at(shared))
    with pytest.raises(SignatureError, match="is not signed"):
        pull(at(shared), tmp_path / "copy.zarr", Wanted(), trusted=keys / "stranger.pub")
    assert not list(tmp_path.glob("copy.zarr*"))
    pulled = pull(
        at(f"{shared}@sha256:{signed}"), tmp_path / "copy.zarr", Wanted(), trusted=keys / "stranger.pub"
    )
    assert pulled.digest == signed


def test_a_signer_is_named_of_no_state_but_the_signed_one(cache, keys, tmp_path, capsys):
    shared, copy = str(tmp_path / "shared.zarr"), tmp_path / "copy.zarr"
    signed = push(cache, at(shared), Terms(key=keys / "anna")).digest
    push(add_teacher(cache, "second"), at(shared))
    pull(at(shared), copy, Wanted())
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    command = ["pull", f"{shared}@sha256:{signed}", str(copy), "--verify", str(keys / "anna.pub")]
    assert run_cli(build_parser(), command) == 2
    told = capsys.readouterr()
    assert "signed by" not in told.out
    assert "copy.zarr holds teachers/second, which is no part of the signed state" in told.err
    assert "pull into another folder" in told.err
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path != copy} == {
        path: written for path, written in before.items() if path != copy
    }
    with pytest.raises(IdentityError, match=signed):
        pull(at(f"{shared}@sha256:{signed}"), copy, Wanted(), trusted=keys / "anna.pub")


def test_a_signed_state_completes_a_folder_that_holds_an_earlier_one(cache, keys, tmp_path):
    shared, copy = str(tmp_path / "shared.zarr"), tmp_path / "copy.zarr"
    push(cache, at(shared))
    pull(at(shared), copy, Wanted())
    signed = push(add_teacher(cache, "second"), at(shared), Terms(key=keys / "anna")).digest
    pulled = pull(at(shared), copy, Wanted(), trusted=keys / "anna.pub")
    assert (pulled.digest, pulled.beyond) == (signed, ())
    assert open_cache(copy).digest == signed


def test_what_was_stated_of_a_copy_outlives_what_the_place_states(cache, tmp_path):
    shared, copy = str(tmp_path / "shared.zarr"), tmp_path / "copy.zarr"
    state_terms(cache, None, "yes")
    push(cache, at(shared))
    pull(at(shared), copy, Wanted())
    assert (copy / STATED).read_bytes() == (cache / STATED).read_bytes()
    state_terms(copy, None, "no")
    pull(at(shared), copy, Wanted())
    with pytest.raises(NotShareableError, match="so its owner stated"):
        require_shareable(copy)


@pytest.mark.parametrize("page", ["README.md", "docs/sharing.md"])
def test_the_commands_that_the_docs_tell_a_team_work_as_written(page):
    lines = [line.partition("  #")[0] for line in (ROOT / page).read_text().splitlines()]
    dumps = [line for line in lines if line.startswith("    make dump-teacher DATASET=msrvtt ")]
    pushes = [line.split()[3:] for line in lines if line.startswith("    python -m store push caches/msrvtt")]
    assert dumps
    assert pushes
    assert all(" DATA=" in line for line in dumps)
    forbidden = not default_terms(find_dataset("msrvtt").card.licence, with_pixels=False).share
    for words in pushes:
        assert build_parser().parse_args(words).i_may == forbidden
