"""The demo's teacher can be made again: its weights are the result of a command, not a gift."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from store.errors import InputError
from store.inputs.datasets import table
from store.inputs.demo_clips import TABLE, WORLD_VERSION, render
from teacher_dump.fit import FIT_SPLITS, FitSettings, evaluate, fit, fit_demo, load_pairs
from teacher_dump.models.tokens import CompactVocabulary
from teacher_dump.teachers import demo
from teacher_dump.teachers.base import TeacherOptions

SUM_RECALL_TOLERANCE = 15.0
"""What another machine's rounding, drawn through 620 steps, may change of a SumR of 300 at most."""


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    render(folder, split_sizes={"train": 32, "val": 16}, seed=0, workers=2)
    samples = table.load(folder / TABLE)
    vocabulary = CompactVocabulary.of(text.text for text in samples.texts)
    return {split: load_pairs(samples, split, vocabulary) for split in ("train", "val")}, vocabulary


def test_a_fit_learns_its_clips_and_is_a_function_of_its_seed(few):
    pairs, vocabulary = few
    settings = FitSettings(epochs=5, batch_size=16, warmup_steps=3, threads=1)
    untrained, _ = fit(pairs["train"], vocabulary, replace(settings, epochs=1, learning_rate=0.0))
    model, seconds = fit(pairs["train"], vocabulary, settings)
    again, _ = fit(pairs["train"], vocabulary, settings)
    assert seconds > 0
    assert (
        evaluate(model, pairs["train"])["text_to_video"]
        > evaluate(untrained, pairs["train"])["text_to_video"] + 20
    )
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_saved_weights_load_to_the_same_teacher(few, tmp_path):
    _, vocabulary = few
    model = demo.XClip(demo.sizes(vocabulary))
    demo.save_weights(tmp_path / "w.safetensors", model, vocabulary.known_N, {"note": 1})
    teacher = demo.load(TeacherOptions(checkpoint=tmp_path / "w.safetensors"))
    assert demo.told_by(tmp_path / "w.safetensors") == {"note": 1}
    assert teacher.identity() == demo.teacher_of(model, vocabulary, None).identity()


def test_weights_of_something_else_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="teacher_dump fit"):
        demo.load(TeacherOptions(checkpoint=tmp_path / "w.safetensors"))


def test_the_shipped_weights_are_small_and_of_the_world_that_is_rendered():
    assert demo.WEIGHTS.stat().st_size < 4_000_000
    assert demo.told_by(demo.WEIGHTS)["world"] == WORLD_VERSION


@pytest.mark.slow
def test_the_shipped_weights_reach_what_they_tell_and_a_re_make_reaches_it_too(tmp_path):
    told = demo.told_by(demo.WEIGHTS)
    settings = FitSettings(**told["settings"])
    made = fit_demo(tmp_path / "clips", tmp_path / "again.safetensors", settings)
    assert told["clips"] == FIT_SPLITS["train"] == made["clips"]
    shipped = demo.load(TeacherOptions())
    samples = table.load(tmp_path / "clips" / TABLE)
    vocabulary = CompactVocabulary.of(text.text for text in samples.texts)
    found = evaluate(shipped.model, load_pairs(samples, "val", vocabulary))
    for direction, stated in told["val_sum_recall"].items():
        assert found[direction] == pytest.approx(stated, abs=1.0)
        assert made["val_sum_recall"][direction] == pytest.approx(stated, abs=SUM_RECALL_TOLERANCE)
