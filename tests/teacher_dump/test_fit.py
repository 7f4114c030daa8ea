"""Fitting: it learns, it goes on where it was interrupted, and what it writes is what a dump reads."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from store.errors import IdentityError, InputError, MissingFileError, NonFiniteError
from store.inputs.datasets import load_dataset
from store.inputs.demo_clips import WORLD_VERSION, render
from store.inputs.frames import decode_view
from teacher_dump.__main__ import build_parser
from teacher_dump.checkpoints import seeded
from teacher_dump.courses import albef as albef_course
from teacher_dump.courses import clip4clip as clip4clip_course
from teacher_dump.courses import demo as demo_course
from teacher_dump.courses import demo_albef as demo_albef_course
from teacher_dump.courses import demo_classes as demo_classes_course
from teacher_dump.courses import demo_clip4clip as demo_clip4clip_course
from teacher_dump.courses import xclip as xclip_course
from teacher_dump.fitting import demo_clips, pair_batches, validation
from teacher_dump.fitting.bert_adam import BertAdam
from teacher_dump.fitting.command import chosen_val_split
from teacher_dump.fitting.contrastive import contrastive_loss
from teacher_dump.fitting.course import Decoding, FitRequest
from teacher_dump.fitting.loop import fit
from teacher_dump.fitting.matching import Matching
from teacher_dump.fitting.settings import COSINE_BY_EPOCH, STRAIGHT_TO_COSINE, FitSettings
from teacher_dump.models.albef_model import Albef, AlbefSizes
from teacher_dump.models.bert_fusion import BertSizes
from teacher_dump.models.demo_world import shipped_weights
from teacher_dump.teachers import (
    albef,
    classes,
    clip4clip,
    demo,
    demo_albef,
    demo_classes,
    demo_clip4clip,
    xclip,
)
from teacher_dump.teachers.base import TeacherOptions
from teacher_dump.weights_file import told_by

SIZES = {"train": 32, "val": 16}
IDENTITY = {"dataset": "demo"}
TOLERANCE_R1 = 8.0
"""What another machine's rounding, drawn through hundreds of steps, may change of an R@1 at most."""


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    render(folder, split_sizes=SIZES, seed=0, workers=1)
    return load_dataset("demo", folder)


class InProcess:
    """A decode pool without processes, whose start would take longer than these fits."""

    def __init__(self, view, workers, limits):
        self.view = view

    def decode(self, paths, video_ids):
        return (decode_view(path, self.view, name) for path, name in zip(paths, video_ids, strict=True))

    def __exit__(self, *problem):
        pass


@pytest.fixture
def real_pool():
    """For a test that wants processes after all."""


@pytest.fixture(autouse=True)
def decode_in_process(request, monkeypatch):
    if "real_pool" not in request.fixturenames:
        monkeypatch.setattr(pair_batches, "DecodePool", InProcess)


@pytest.fixture
def request_for(samples):
    def make(defaults: FitSettings, **changes):
        options = {
            name: changes.pop(name) for name in ("checkpoint", "vocabulary", "options") if name in changes
        }
        settings = replace(defaults, batch_size=8, threads=1, **changes)
        return FitRequest(samples, settings, Decoding(decoders=1), **options)

    return make


def fitted(course_of, request, out):
    course = course_of.course(request)
    try:
        return fit(course, request.settings, out, IDENTITY, report=lambda line: None), course
    finally:
        course.close()


# The optimiser and the schedules


def test_bert_adam_is_adam_without_bias_correction_with_each_tensor_clipped():
    generator = np.random.Generator(np.random.PCG64(0))
    start, gradients = (
        generator.normal(size=(3, 2)),
        generator.normal(size=(4, 3, 2)) * [[[0.1]], [[9]], [[1]], [[3]]],
    )
    weight = torch.nn.Parameter(torch.tensor(start))
    optimiser = BertAdam([{"params": [weight], "weight_decay": 0.2}], lr=0.01)
    mean, square, expected = np.zeros((3, 2)), np.zeros((3, 2)), start.copy()
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        optimiser.step()
        clipped = gradient * min(1.0, 1.0 / (np.linalg.norm(gradient) + 1e-6))
        mean, square = 0.9 * mean + 0.1 * clipped, 0.98 * square + 0.02 * clipped**2
        expected -= 0.01 * (mean / (np.sqrt(square) + 1e-6) + 0.2 * expected)
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-12)


def test_the_official_warm_up_starts_at_nothing_and_meets_a_cosine_that_has_begun():
    rates = [clip4clip_course.DEFAULTS.rate(step, 100, 20) for step in range(100)]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.5 * (1 + math.cos(0.1 * math.pi)))
    assert max(rates) < 1
    assert rates[-1] < 1e-3


def test_albefs_rate_changes_by_epoch_and_ends_at_a_tenth():
    rates = [albef_course.DEFAULTS.rate(step, 100, 10) for step in range(100)]
    assert rates[:10] == [1.0] * 10
    assert len(set(rates)) == 10
    assert rates[-1] == pytest.approx(0.1)


def test_the_defaults_are_the_official_recipes():
    official = {"epochs": 5, "learning_rate": 1e-4, "pretrained_learning_rate": 1e-7, "weight_decay": 0.2,
                "warmup": 0.1, "betas": (0.9, 0.98), "clip_norm": 1.0, "frames": 12, "words": 32,
                "optimiser": "bert_adam", "schedule": "warmup_cosine"}  # fmt: skip
    for course_of, batch_size in ((clip4clip_course, 128), (xclip_course, 300)):
        found = {name: getattr(course_of.DEFAULTS, name) for name in official}
        assert (found, course_of.DEFAULTS.batch_size) == (official, batch_size)
    found = albef_course.DEFAULTS
    assert (found.epochs, found.batch_size, found.learning_rate, found.weight_decay) == (10, 32, 1e-5, 0.02)
    assert (found.optimiser, found.schedule, found.words) == ("adamw", COSINE_BY_EPOCH, 30)
    assert Matching() == Matching(momentum=0.995, queue=65536, alpha=0.4, rerank=128)


def test_clip_learns_a_thousandth_of_what_is_new_and_biases_do_not_decay(request_for, tmp_path):
    request = request_for(clip4clip_course.DEFAULTS, checkpoint=clip_file(tmp_path), frames=4, words=16)
    course = clip4clip_course.course(request)
    course.close()
    names = {id(p): name for name, p in course.model.named_parameters()}
    told = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in course.groups() for p in g["params"]}
    assert told["clip.visual.proj"] == (1e-7, 0.2)
    assert told["clip.visual.conv1.weight"] == (1e-7, 0.2)
    assert told["clip.ln_final.bias"] == (1e-7, 0.0)
    assert told["transformerClip.resblocks.0.attn.in_proj_weight"] == (1e-4, 0.2)
    assert told["transformerClip.resblocks.0.attn.in_proj_bias"] == (1e-4, 0.0)
    assert len(told) == len(names)


# Learning


@pytest.mark.slow
def test_a_fit_learns_its_pairs_and_is_a_function_of_its_seed(request_for, tmp_path):
    request = request_for(demo_course.DEFAULTS, epochs=4, warmup=2)
    told, _ = fitted(demo_course, request, tmp_path / "one.safetensors")
    fitted(demo_course, request, tmp_path / "two.safetensors")
    losses = [epoch["loss"] for epoch in told["epochs"]]
    assert losses[-1] < losses[0] - 0.1
    one, two = load_file(tmp_path / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_what_a_fit_wrote_is_what_a_dump_loads(request_for, samples, tmp_path):
    for course_of, teacher_module in (
        (demo_course, demo),
        (demo_clip4clip_course, demo_clip4clip),
        (demo_albef_course, demo_albef),
    ):
        out = tmp_path / f"{teacher_module.__name__}.safetensors"
        told, course = fitted(course_of, request_for(course_of.DEFAULTS, epochs=1), out)
        loaded = teacher_module.load(TeacherOptions(checkpoint=out, layers=()))
        expected = course.teacher.encode_texts(["a small red circle moves left"])
        found = loaded.encode_texts(["a small red circle moves left"])
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert loaded.name == course.teacher.name
        assert told_by(out) == json.loads(json.dumps(told))
        assert told["settings"]["epochs"] == 1


def clip_file(folder, seed=5):
    """Tiny towers as a state dict of OpenAI's."""
    towers = clip4clip.tiny(seed).model.clip.state_dict()
    path = folder / "clip.safetensors"
    save_file({name: value.contiguous() for name, value in towers.items()}, path)
    return path


@pytest.mark.parametrize(("course_of", "teacher"), [(clip4clip_course, clip4clip), (xclip_course, xclip)])
def test_an_official_fit_from_clips_weights_gives_a_file_of_the_official_layout(
    course_of, teacher, request_for, tmp_path
):
    start = clip_file(tmp_path)
    request = request_for(course_of.DEFAULTS, checkpoint=start, frames=4, words=16, epochs=1)
    told, course = fitted(course_of, request, tmp_path / "new.safetensors")
    loaded = teacher.load(TeacherOptions(checkpoint=tmp_path / "new.safetensors"))
    frames = torch.zeros(1, loaded.view.frames, 32, 32, 3, dtype=torch.uint8)
    valid = torch.ones(1, loaded.view.frames, dtype=torch.bool)
    expected = course.teacher.encode_videos(frames, valid)["frame_embedding"]
    if teacher is xclip:
        assert torch.equal(loaded.encode_videos(frames, valid)["frame_embedding"], expected)
    assert told["started_from"]["file"] == "clip.safetensors"
    assert len(told["started_from"]["sha256"]) == 64
    # At 1e-7 the towers stay where they were, but for the last digits.
    torch.testing.assert_close(
        loaded.model.clip.visual.proj, load_file(start)["visual.proj"], atol=1e-5, rtol=0
    )


def test_new_modules_begin_with_clips_text_blocks_as_officially(request_for, tmp_path):
    request = request_for(clip4clip_course.DEFAULTS, checkpoint=clip_file(tmp_path), frames=4, words=16)
    course = clip4clip_course.course(request)
    course.close()
    state = course.model.state_dict()
    assert torch.equal(
        state["transformerClip.resblocks.0.mlp.c_fc.weight"],
        state["clip.transformer.resblocks.0.mlp.c_fc.weight"],
    )
    assert torch.equal(state["frame_position_embeddings.weight"], state["clip.positional_embedding"])


def albef_files(folder):
    """Tiny weights in the official layout, without copies, and the vocabulary beside them."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*albef.SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    text = BertSizes(len(words), 64, 2, 1, 1, 64, albef.WORDS, 64)
    model = seeded(4, lambda: Albef(AlbefSizes(32, 16, 64, 2, 1, 96, text, 16)))
    save_file({n: v.contiguous() for n, v in model.state_dict().items()}, folder / "albef.safetensors")
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder / "albef.safetensors"


@pytest.mark.slow
def test_a_cross_encoder_learns_to_match_and_keeps_its_momentum_copies(request_for, tmp_path):
    request = request_for(
        albef_course.DEFAULTS,
        checkpoint=albef_files(tmp_path),
        learning_rate=1e-3,
        pretrained_learning_rate=1e-3,
        epochs=4,
        options={"image_size": 32, "queue": 16, "momentum": 0.9},
    )
    told, course = fitted(albef_course, request, tmp_path / "new.safetensors")
    losses = [epoch["loss"] for epoch in told["epochs"]]
    assert losses[-1] < losses[0]
    options = TeacherOptions(checkpoint=tmp_path / "new.safetensors", vocabulary=tmp_path / "vocab.txt")
    if told["best_epoch"] == len(losses):
        online = albef.load(options).encode_texts(["abc"])["text_embedding"]
        assert torch.equal(online, course.teacher.encode_texts(["abc"])["text_embedding"])
    copies = albef.load(replace(options, variant=("momentum",)))
    assert not torch.equal(
        copies.encode_texts(["abc"])["text_embedding"],
        albef.load(options).encode_texts(["abc"])["text_embedding"],
    )


def test_positions_of_another_image_size_are_interpolated(request_for, tmp_path):
    request = request_for(
        albef_course.DEFAULTS, checkpoint=albef_files(tmp_path), options={"image_size": 64, "queue": 16}
    )
    course = albef_course.course(request)
    course.close()
    assert course.teacher.view.size == 64
    assert course.model.sizes.tokens == 17


def test_a_learned_prompt_separates_what_its_towers_can_tell(request_for, samples, tmp_path):
    request = request_for(demo_classes_course.DEFAULTS, epochs=12)
    told, _ = fitted(demo_classes_course, request, tmp_path / "prompt.safetensors")
    losses = [epoch["loss"] for epoch in told["epochs"]]
    assert losses[-1] < losses[0] - 0.1
    names = [text.text for text in samples.texts if text.kind == "class"]
    learned = demo_classes.load(TeacherOptions(learned_prompt=tmp_path / "prompt.safetensors"))
    plain = demo_classes.load(TeacherOptions())
    assert not torch.allclose(
        learned.encode_texts(names)["text_embedding"], plain.encode_texts(names)["text_embedding"]
    )
    assert learned.identity()["classifier"]["kind"] == "learned prompt"
    with pytest.raises(InputError, match="learned for towers"):
        classes.LearnedPrompt.read(tmp_path / "prompt.safetensors", demo_classes.tiny(3).model)


# Going on, and refusing to


class KilledError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("course_of", [demo_course, pytest.param(demo_albef_course, marks=pytest.mark.slow)])
def test_an_interrupted_fit_ends_as_an_uninterrupted_one(course_of, request_for, tmp_path):
    request = request_for(course_of.DEFAULTS, epochs=3, warmup=2)
    fitted(course_of, request, tmp_path / "whole.safetensors")

    def kill(line):
        if line.startswith("epoch 2"):
            raise KilledError

    course = course_of.course(request)
    with pytest.raises(KilledError):
        fit(course, request.settings, tmp_path / "cut.safetensors", IDENTITY, report=kill)
    course.close()
    assert not (tmp_path / "cut.safetensors").exists()
    fitted(course_of, request, tmp_path / "cut.safetensors")
    whole, cut = load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "cut.safetensors")
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert not (tmp_path / "cut.safetensors.resume").exists()


def test_another_fits_rest_is_refused(request_for, tmp_path):
    request = request_for(demo_course.DEFAULTS, epochs=2)
    course = demo_course.course(request)

    def kill(line):
        raise KilledError

    with pytest.raises(KilledError):
        fit(course, request.settings, tmp_path / "w.safetensors", IDENTITY, report=kill)
    course.close()
    with pytest.raises(IdentityError, match=r"settings\.seed.*delete w\.safetensors\.resume"):
        fitted(demo_course, request_for(demo_course.DEFAULTS, epochs=2, seed=1), tmp_path / "w.safetensors")


def test_a_loss_that_is_no_number_stops_the_fit(request_for, tmp_path):
    request = request_for(demo_course.DEFAULTS, epochs=1, learning_rate=1e30, warmup=0.0)
    with pytest.raises(NonFiniteError, match="loss is nan"):
        fitted(demo_course, request, tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


def test_a_video_that_does_not_decode_is_left_out_and_named(real_pool, request_for, samples, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    videos = (replace(samples.videos[0], path=broken), *samples.videos[1:])
    request = replace(request_for(demo_course.DEFAULTS, epochs=1), samples=replace(samples, videos=videos))
    told, course = fitted(demo_course, request, tmp_path / "w.safetensors")
    assert told["failures"] == 1
    assert list(course.failures()) == [samples.videos[0].id]


def test_frames_beyond_the_memory_for_them_are_decoded_anew(samples, request_for, tmp_path):
    request = request_for(demo_course.DEFAULTS, epochs=1)
    fitted(demo_course, request, tmp_path / "kept.safetensors")
    tight = replace(request, decoding=replace(request.decoding, keep_mb=0))
    _, course = fitted(demo_course, tight, tmp_path / "anew.safetensors")
    assert not course.source._kept
    kept, anew = load_file(tmp_path / "kept.safetensors"), load_file(tmp_path / "anew.safetensors")
    assert all(torch.equal(value, anew[name]) for name, value in kept.items())


@pytest.mark.parametrize(
    ("words", "error", "told"),
    [
        (["xclip"], InputError, "wants --dataset"),
        (["xclop", "--dataset", "demo"], LookupError, "did you mean 'xclip'"),
        (["demo"], InputError, "is there; name another"),
        (["clip4clip", "--queue", "8"], InputError, "no use for --queue"),
        (["albef", "--context", "4"], InputError, "no use for --context"),
        (["xclip", "--vocabulary", "vocab.txt"], InputError, "no use for --vocabulary"),
        (["demo", "--overwrite", "--frames", "4"], InputError, "no use for --frames"),
    ],
)
def test_the_command_says_what_it_wants(words, error, told):
    arguments = build_parser().parse_args(["fit", *words])
    with pytest.raises(error, match=told):
        arguments.execute(arguments)


def test_a_fit_without_first_weights_says_what_they_are(request_for):
    with pytest.raises(MissingFileError, match=r"CLIP's weights.*--checkpoint"):
        clip4clip_course.course(request_for(clip4clip_course.DEFAULTS))


@pytest.mark.parametrize("course_of", [demo_course, demo_albef_course])
def test_a_fit_on_a_device_that_is_not_there_says_so(request_for, course_of):
    request = replace(request_for(course_of.DEFAULTS), device="cuda:99")
    with pytest.raises(InputError, match="no device 'cuda:99' for the teacher here"):
        course_of.course(request)


def test_a_split_to_validate_on_that_was_named_has_to_be_there(samples):
    assert chosen_val_split(samples, None) == "val"
    assert chosen_val_split(samples, "train") == "train"
    with pytest.raises(InputError, match=r"no split 'foo' to validate on, it has .*train.*--val-split"):
        chosen_val_split(samples, "foo")


def test_without_the_usual_split_the_last_epoch_is_kept(samples):
    assert chosen_val_split(replace(samples, splits={"train": samples.splits["train"]}), None) == "val"


def test_videos_that_do_not_decode_are_left_out_of_the_validation(request_for, monkeypatch):
    monkeypatch.setattr(validation, "VIDEOS_AT_ONCE", 4)
    course = demo_clip4clip_course.course(request_for(demo_clip4clip_course.DEFAULTS))
    broken, decoded = course.check.videos[:4], course.source.frames
    monkeypatch.setattr(
        course.source, "frames", lambda rows: decoded([row for row in rows if row not in broken])
    )
    assert course.validate()["score"] > 0
    monkeypatch.setattr(course.source, "frames", lambda rows: {})
    with pytest.raises(InputError, match="not one video of split 'val' decodes"):
        course.validate()
    course.close()


def test_fewer_captions_than_a_batch_are_refused(request_for):
    request = request_for(demo_course.DEFAULTS)
    request = replace(request, settings=replace(request.settings, batch_size=64))
    with pytest.raises(InputError, match="has 32 captions, fewer than a batch of 64"):
        demo_course.course(request)


def test_the_contrastive_loss_is_least_where_pairs_match():
    assert contrastive_loss(20 * torch.eye(4)) < 1e-6 < contrastive_loss(torch.zeros(4, 4))


# What is shipped


@pytest.mark.parametrize("name", ["demo", "demo_clip4clip", "demo_albef"])
def test_shipped_weights_are_small_and_of_the_world_that_is_rendered(name):
    assert shipped_weights(name).stat().st_size < 2_000_000
    assert told_by(shipped_weights(name))["world"] == WORLD_VERSION


def test_the_demos_first_teacher_was_made_with_the_recipe_that_its_course_has():
    told, now = told_by(shipped_weights("demo"))["settings"], demo_course.DEFAULTS.to_dict()
    assert told["warmup_steps"] == now["warmup"]
    assert now["schedule"] == STRAIGHT_TO_COSINE
    assert {name: now[name] for name in told if name in now} == {
        name: told[name] for name in told if name in now
    }


@pytest.mark.slow
def test_a_re_make_of_the_demos_first_teacher_reaches_what_the_shipped_one_tells(tmp_path):
    demo_clips.prepare(tmp_path / "clips")
    samples = load_dataset("demo", tmp_path / "clips")
    request = FitRequest(samples, demo_course.DEFAULTS, Decoding())
    told, course = fitted(demo_course, request, tmp_path / "again.safetensors")
    stated = told_by(shipped_weights("demo"))["val_sum_recall"]
    for direction, value in stated.items():
        assert told["epochs"][-1][f"{direction} SumR"] == pytest.approx(value, abs=2 * TOLERANCE_R1)
    shipped = demo.load(TeacherOptions())
    course.model.load_state_dict(shipped.model.state_dict())
    found = course.validate()
    for direction, value in stated.items():
        assert found[f"{direction} SumR"] == pytest.approx(value, abs=1.0)
