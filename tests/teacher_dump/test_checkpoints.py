"""Files with weights: what is read, what is refused, and what a digest of weights covers."""

import argparse
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from store.errors import InputError, MissingFileError
from teacher_dump.checkpoints import load_strictly, read_state, weights_digest

WANTED = "the weights of somebody"
STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


def read(path):
    return read_state(path, "xclip", WANTED)


def assert_is_the_state(found):
    assert set(found) == set(STATE)
    assert all(torch.equal(value, STATE[name]) for name, value in found.items())


@pytest.mark.parametrize("name", ["weights.pt", "weights.bin", "weights.pth"])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_of_pytorch_is_read_with_its_state_bare_or_wrapped(tmp_path, name, wrapped, zipped):
    content = {"epoch": 3, "state_dict": STATE} if wrapped else STATE
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert_is_the_state(read(tmp_path / name))


def test_a_safetensors_file_is_read(tmp_path):
    save_file(STATE, tmp_path / "weights.safetensors")
    assert_is_the_state(read(tmp_path / "weights.safetensors"))


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path, write):
    touched = tmp_path / "touched"
    write({"weight": torch.ones(2), "more": Touch(touched)}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="nothing in it was run") as caught:
        read(tmp_path / "weights.pt")
    assert "\n" not in str(caught.value)
    assert not touched.exists()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("content", "held"),
    [
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({**STATE, "args": argparse.Namespace(epoch=1)}, "argparse.Namespace"),
    ],
)
def test_a_file_with_more_than_tensors_is_refused_naming_what_it_holds(tmp_path, zipped, content, held):
    torch.save(content, tmp_path / "weights.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=rf"weights\.pt is no checkpoint .*: it holds {held}, ") as caught:
        read(tmp_path / "weights.pt")
    assert_is_in_our_words(caught.value)


def test_a_torchscript_archive_is_refused_with_what_to_give_instead(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "ViT-B-32.pt"))
    with pytest.raises(InputError, match=r"pytorch_model\.bin.*--pretrained openai") as caught:
        read(tmp_path / "ViT-B-32.pt")
    assert_is_in_our_words(caught.value)


def assert_is_in_our_words(error):
    """Nothing of torch's advice to load the file by running it."""
    assert "weights_only" not in str(error)
    assert "Re-running" not in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("content", [[torch.ones(2)], {"weight": torch.ones(2), "epoch": 3}])
def test_a_file_that_holds_more_than_tensors_by_name_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(InputError, match="more than tensors by name"):
        read(tmp_path / "weights.pt")


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello world\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        b"<!DOCTYPE html>\n",
        b"(not a checkpoint)\n",
        b"\x80",
        b"PK\x03\x04 cut off",
        b"video,text\na.mp4,a clip\n",
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is no checkpoint of plain tensors") as caught:
        read(path)
    assert_is_in_our_words(caught.value)


def test_half_a_checkpoint_is_refused(tmp_path):
    torch.save(STATE, tmp_path / "weights.pt")
    save_file(STATE, tmp_path / "weights.safetensors")
    for path in tmp_path.glob("weights.*"):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match="is no checkpoint of plain tensors"):
            read(path)


def test_a_missing_file_is_told_with_what_to_place_where(tmp_path):
    with pytest.raises(MissingFileError, match=rf"weights/xclip\.bin; place {WANTED} there"):
        read(None)
    with pytest.raises(MissingFileError, match=rf"absent\.pt; place {WANTED} there"):
        read(tmp_path / "absent.pt")


def test_strict_loading_takes_what_fits():
    module = nn.Linear(3, 2)
    load_strictly(module, STATE, "here.pt")
    assert_is_the_state(module.state_dict())


def test_everything_that_does_not_fit_is_listed_in_one_error_and_nothing_is_loaded():
    module = nn.Sequential(*(nn.Linear(3, 2) for _ in range(5)))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(2), "head": torch.ones(1)}
    with pytest.raises(InputError) as caught:
        load_strictly(module, state, "here.pt")
    told = str(caught.value)
    assert told.startswith("here.pt does not fit")
    assert "8 missing (1.bias, 1.weight, 2.bias, 2.weight, " in told
    assert "1 left over (head)" in told
    assert "1 of another shape (0.weight [3, 2] for [2, 3])" in told
    assert "\n" not in told
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Tensors(nn.Module):
    """A module of just these buffers, registered in this order."""

    def __init__(self, tensors):
        super().__init__()
        for name, value in tensors.items():
            self.register_buffer(name, value)


def digest(**tensors):
    return weights_digest(Tensors(tensors))


WEIGHT, SCALE = torch.arange(6.0), torch.tensor(2.0)


def test_the_digest_does_not_depend_on_the_order_or_the_layout_in_memory():
    square = torch.arange(6.0).reshape(2, 3)
    assert digest(weight=WEIGHT, scale=SCALE) == digest(scale=SCALE.clone(), weight=WEIGHT.clone())
    assert digest(weight=square.T) == digest(weight=square.T.contiguous())


def one_bit_flipped(tensor):
    flipped = tensor.clone()
    flipped.view(torch.int32)[..., -1:] ^= 1
    return flipped


@pytest.mark.parametrize(
    "other",
    [
        {"weight": one_bit_flipped(WEIGHT), "scale": SCALE},
        {"weight": WEIGHT, "scale": one_bit_flipped(SCALE[None])[0]},
        {"weight": WEIGHT.view(torch.int32), "scale": SCALE},
        {"weight": WEIGHT.reshape(2, 3), "scale": SCALE},
        {"weight": WEIGHT, "scale": SCALE[None]},
        {"heavy": WEIGHT, "scale": SCALE},
        {"weight": WEIGHT},
        {"weight": WEIGHT, "scale": SCALE, "nothing": torch.zeros(0)},
    ],
    ids=["bit", "bit-of-scalar", "dtype", "shape", "dimension", "name", "fewer", "empty"],
)
def test_the_digest_changes_with_any_bit_type_shape_or_name(other):
    assert digest(**other) != digest(weight=WEIGHT, scale=SCALE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_weights_of_any_type_have_a_digest_scalars_included(dtype):
    zeros = digest(weight=torch.zeros(2, 2, dtype=dtype), scale=torch.tensor(0, dtype=dtype))
    ones = digest(weight=torch.zeros(2, 2, dtype=dtype), scale=torch.tensor(1, dtype=dtype))
    assert zeros != ones
