"""Every golden case that we know, and what the runner says of those that fail or are unknown."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.golden.__main__ import main
from tests.golden.run import FAILED, PASSED, SKIPPED, known_cases, run_case

# Outputs whose wrong value would be told by the runner, one case each for a matrix and a vector.
TOLD = ("clip4clip_seqtransf_a", "logits")


@pytest.mark.parametrize("name", known_cases())
def test_every_output_is_the_official_one(shared, name):
    paths = sorted((shared / "golden").glob(f"{name}_?.json"))
    assert paths, f"no case {name} in the shared material"
    for path in paths:
        verdict = run_case(path)
        assert verdict.result == PASSED, verdict.told


@pytest.fixture
def folder(shared, tmp_path):
    """A folder with one case, to be spoiled."""
    for suffix in (".json", ".safetensors"):
        source = (shared / "golden" / TOLD[0]).with_suffix(suffix)
        (tmp_path / source.name).write_bytes(source.read_bytes())
    return tmp_path


def spoil(folder, key, change):
    path = folder / f"{TOLD[0]}.safetensors"
    tensors = load_file(path)
    tensors[key] = change(tensors[key])
    save_file(tensors, path)


def rewrite(folder, **fields):
    path = folder / f"{TOLD[0]}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def last_line(capsys):
    return capsys.readouterr().out.strip().splitlines()[-1]


def test_a_folder_of_passing_cases_ends_well(folder, capsys):
    assert main([str(folder)]) == 0
    assert last_line(capsys) == "1 passed, 0 failed, 0 skipped"


def test_an_output_beyond_its_tolerance_fails_the_run(folder, capsys):
    spoil(folder, f"output.{TOLD[1]}", lambda value: value + 0.01)
    assert main([str(folder)]) == 1
    assert last_line(capsys) == "0 passed, 1 failed, 0 skipped"


def test_a_weight_that_is_wrong_fails_the_case(folder):
    spoil(folder, "state.transformerClip.resblocks.0.mlp.c_fc.weight", lambda value: value * 1.1)
    verdict = run_case(folder / f"{TOLD[0]}.json")
    assert verdict.result == FAILED
    assert "video_embedding_normalised" in verdict.told or "logits" in verdict.told


def test_an_output_that_nobody_computes_fails_the_case(folder):
    path = folder / f"{TOLD[0]}.safetensors"
    save_file({**load_file(path), "output.surprise": torch.ones(1)}, path)
    verdict = run_case(folder / f"{TOLD[0]}.json")
    assert verdict.result == FAILED
    assert "surprise" in verdict.told


def test_an_unknown_case_is_skipped_with_its_reason(folder, capsys):
    rewrite(folder, case="a_student_to_come")
    assert run_case(folder / f"{TOLD[0]}.json").result == SKIPPED
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert "'a_student_to_come'" in out
    assert out.strip().splitlines()[-1] == "0 passed, 0 failed, 1 skipped"


def test_a_folder_without_cases_and_no_folder_are_failures(tmp_path):
    assert main([str(tmp_path)]) == 1
    assert main([str(tmp_path / "absent")]) == 2
    assert main([]) == 2


def test_a_case_whose_vectors_are_missing_fails_and_the_others_still_run(folder, shared, capsys):
    source = shared / "golden" / "xpool_a.json"
    (folder / source.name).write_bytes(source.read_bytes())
    assert main([str(folder)]) == 1
    assert last_line(capsys) == "1 passed, 1 failed, 0 skipped"
