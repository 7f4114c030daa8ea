import json

import pytest
import torch

from store.errors import DamagedCacheError
from student_train.checkpoint import (
    LOG_FILE,
    STORY_FILE,
    STUDENT_FILE,
    Checkpoints,
    StepLog,
    load_parameters,
    load_story,
    save_training,
)

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "scale": torch.tensor(2.5)}


@pytest.fixture
def folder(tmp_path):
    log = StepLog(tmp_path / "run" / "one")
    log(0, {"step": 0})
    log(1, {"step": 1})
    log.close()
    save_training(tmp_path / "run" / "one", STATE, {"seconds": 1.5})
    return tmp_path / "run" / "one"


def test_what_is_saved_comes_back(folder) -> None:
    loaded = load_parameters(folder)
    assert all(torch.equal(value, loaded[name]) for name, value in STATE.items())
    story = load_story(folder)
    assert story is not None
    assert story["seconds"] == 1.5
    lines = (folder / LOG_FILE).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1]
    assert sorted(path.name for path in folder.iterdir()) == sorted([STUDENT_FILE, STORY_FILE, LOG_FILE])


def test_a_training_without_its_story_does_not_count(folder) -> None:
    (folder / STORY_FILE).unlink()
    assert load_story(folder) is None


@pytest.mark.parametrize("damage", ["change a byte", "cut it", "remove it"])
def test_a_damaged_student_is_recognised(folder, damage: str) -> None:
    file = folder / STUDENT_FILE
    content = bytearray(file.read_bytes())
    if damage == "remove it":
        file.unlink()
    else:
        content[-1] ^= 1
        file.write_bytes(content if damage == "change a byte" else content[:-3])
    with pytest.raises(DamagedCacheError, match="train again"):
        load_parameters(folder)


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"facts": {"step": 9}}'])
def test_where_every_checkpoint_is_damaged_a_training_is_told_that_it_begins_anew(tmp_path, content) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(4, STATE, {"step": 4})
    assert checkpoints.step() == 4
    (tmp_path / "step-00000004.json").write_bytes(content)
    with pytest.warns(RuntimeWarning, match="step-00000004.*none before it, so the training begins anew"):
        assert checkpoints.newest() is None
