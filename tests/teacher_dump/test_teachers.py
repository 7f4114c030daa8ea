"""The contract, run over every teacher in the folder, and what each of them refuses."""

from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from store.errors import InputError, MissingFileError, UnknownNameError
from store.lookup import load_plugin, plugin_names
from teacher_dump import teachers
from teacher_dump.__main__ import build_parser
from teacher_dump.dump_options import DTYPE_NAMES, parse_layers, teacher_options
from teacher_dump.models import demo_world
from teacher_dump.models.demo_world import KNOWN_TOKENS
from teacher_dump.models.tokens import CompactVocabulary
from teacher_dump.teachers import clip, demo, xclip
from teacher_dump.teachers.base import DTYPES, TeacherOptions
from teacher_dump.weights_file import told_by, write_weights
from teacher_dump.workers.jobs import load_teacher
from tests.contracts.teacher_contract import TeacherContract

BEYOND = (0, 99)


@pytest.fixture(params=plugin_names(teachers))
def module(request: pytest.FixtureRequest) -> ModuleType:
    return load_plugin(teachers, "teacher", request.param)


class TestEveryTeacher(TeacherContract):
    pass


@pytest.fixture
def xclip_file(tmp_path):
    path = tmp_path / "xclip.safetensors"
    save_file(xclip.tiny(3).model.state_dict(), path)
    return path


@pytest.fixture
def demo_file(tmp_path):
    vocabulary = CompactVocabulary.of(["a small red circle"])
    torch.manual_seed(3)
    path = tmp_path / "demo.safetensors"
    model = xclip.XClip(demo.xclip_sizes(vocabulary))
    write_weights(path, {**model.state_dict(), KNOWN_TOKENS: vocabulary.known_N}, {"clips": 4000})
    return path


def test_xclip_without_weights_says_in_one_line_what_to_place_where():
    with pytest.raises(MissingFileError, match=r"weights/xclip\.bin; place the pytorch_model\.bin") as caught:
        xclip.load(TeacherOptions())
    assert "\n" not in str(caught.value)


def test_xclip_reads_its_architecture_off_the_weights(xclip_file):
    loaded = xclip.load(TeacherOptions(checkpoint=xclip_file))
    assert loaded.identity() == xclip.tiny(3).identity()
    assert (loaded.view.frames, loaded.view.size) == (4, 32)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"layers": BEYOND}, "no vision block 99: the tower has 2"),
        ({"layers": (-1,)}, "no vision block -1"),
        ({"frames": 5}, "trained with 4 frames"),
        ({"architecture": "ViT-B-32"}, "leave out --architecture"),
        ({"pretrained": "openai"}, "leave out --architecture"),
    ],
)
def test_xclip_refuses_what_its_weights_do_not_allow(xclip_file, wrong, told):
    with pytest.raises(InputError, match=told):
        xclip.load(TeacherOptions(checkpoint=xclip_file, **wrong))


def test_xclip_refuses_the_weights_of_another_model(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not an X-CLIP checkpoint"):
        xclip.load(TeacherOptions(checkpoint=tmp_path / "other.safetensors"))


def test_layers_that_are_asked_for_are_the_ones_that_are_emitted(xclip_file):
    loaded = xclip.load(TeacherOptions(checkpoint=xclip_file, layers=(1,)))
    assert [spec.name for spec in loaded.signals if spec.name.startswith("vit_layers")] == ["vit_layers/1"]


def test_the_demo_teacher_comes_back_from_its_file(demo_file):
    loaded = demo.load(TeacherOptions(checkpoint=demo_file))
    again = demo.load(TeacherOptions(checkpoint=demo_file))
    assert loaded.identity() == again.identity()
    assert told_by(demo_file) == {"clips": 4000}


def test_the_demo_teacher_without_weights_says_what_makes_them(monkeypatch, tmp_path):
    monkeypatch.setattr(demo_world, "WEIGHTS", tmp_path)
    with pytest.raises(MissingFileError, match="python -m teacher_dump fit") as caught:
        demo.load(TeacherOptions())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"layers": BEYOND}, "no vision block 99: the tower has 3"),
        ({"frames": 5}, "8 frames"),
        ({"architecture": "ViT-B-32"}, "leave those options out"),
    ],
)
def test_the_demo_teacher_refuses_what_it_can_not_do(demo_file, wrong, told):
    with pytest.raises(InputError, match=told):
        demo.load(TeacherOptions(checkpoint=demo_file, **wrong))


def test_the_demo_teacher_refuses_weights_that_no_fit_wrote(xclip_file):
    with pytest.raises(InputError, match="python -m teacher_dump fit"):
        demo.load(TeacherOptions(checkpoint=xclip_file))
    with pytest.raises(InputError, match="python -m teacher_dump fit"):
        told_by(xclip_file)


@pytest.mark.parametrize("layers", [BEYOND, (-1,)])
def test_clip_refuses_blocks_that_its_tower_has_not(layers):
    tiny = clip.tiny(0)
    with pytest.raises(InputError, match=r"no vision block .*: the tower has 2"):
        clip.ClipTeacher(tiny.model, "tiny", clip.RANDOM, tiny.tokenize, layers=layers)


def test_clip_refuses_layers_of_a_tower_that_has_no_blocks():
    with pytest.raises(InputError, match="no ViT blocks"):
        clip.tapped_layers(nn.Linear(2, 2), (1,), "RN50")
    assert clip.tapped_layers(nn.Linear(2, 2), None, "RN50") == ()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"architecture": "ViT-B-33"}, "did you mean"),
        ({"pretrained": "opennai"}, "did you mean 'openai'"),
    ],
)
def test_clip_says_what_there_is_in_place_of_an_unknown_name(options, told):
    with pytest.raises(UnknownNameError, match=told):
        clip.load(TeacherOptions(**options))


def test_clip_wants_its_weights_from_one_place_and_there(tmp_path):
    absent = tmp_path / "absent.safetensors"
    with pytest.raises(InputError, match="not both"):
        clip.load(TeacherOptions(checkpoint=absent, pretrained="openai"))
    with pytest.raises(MissingFileError, match=r"absent\.safetensors; place"):
        clip.load(TeacherOptions(checkpoint=absent))


def test_the_command_offers_the_precisions_that_teachers_have():
    assert tuple(DTYPES) == DTYPE_NAMES


def test_what_the_command_line_says_of_a_teacher_reaches_it(tmp_path):
    def told(*words):
        asked = build_parser().parse_args(["dump", "--data", str(tmp_path), *words])
        return load_teacher(asked.teacher, teacher_options(asked, parse_layers(asked.layers)))

    assert told("--dtype", "bfloat16", "--layers", "1").identity()["dtype"] == "bfloat16"
    assert told("--layers", "1").layers == (1,)
    for words, wrong in (
        (("--variant", "noise-free"), "no variant 'noise-free'"),
        (("--prompt", "a {}"), "takes no --prompts"),
        (("--vocabulary", "vocab.txt"), "takes no --vocabulary"),
        (("--words", "64"), "takes no --words"),
        (("--device", "nonsense"), "no device 'nonsense'"),
    ):
        with pytest.raises(InputError, match=wrong):
            told(*words)
