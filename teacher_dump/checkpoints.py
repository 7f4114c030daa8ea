"""Files with weights -> tensors by name, and what a digest of weights is.

A file is only data: safetensors, or a PyTorch file that `weights_only` loading accepts; whatever needs
more than that is refused with the reason.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from store.errors import InputError, MissingFileError
from store.untrusted import printable

Module = TypeVar("Module", bound=nn.Module)
SHOWN = 12
# Where training codes keep the weights beside optimiser and epoch, and what DistributedDataParallel prepends.
WRAPPERS = ("state_dict", "model")
PARALLEL = "module."
TORCHSCRIPT = "TorchScript"
REFUSED_GLOBAL = re.compile(r"GLOBAL (\S+)")


def read_state(path: Path | None, teacher: str, what: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU, out of their wrapping.

    Raises MissingFileError, naming `what` to place where, if there is none; InputError if it is no
    checkpoint of plain tensors.
    """
    if path is None or not path.is_file():
        where = f"weights/{teacher}.bin" if path is None else str(path)
        raise MissingFileError(
            f"no weights for teacher {teacher!r} at {where}; place {what} there, or name it by CHECKPOINT="
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of, it also refuses, in the one line below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch's reader of pickles lets through whatever a stray byte leads to
        raise InputError(f"{path} {refusal(error)}") from None
    for wrapper in WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds more than tensors by name; save the model's state_dict and give that")
    parallel = bool(state) and all(str(name).startswith(PARALLEL) for name in state)
    return {
        str(name).removeprefix(PARALLEL) if parallel else str(name): value for name, value in state.items()
    }


def refusal(error: Exception) -> str:
    """Why a file was not read, and what to give instead, in our own words: torch's advise to run it."""
    if TORCHSCRIPT in str(error):
        return (
            "is a TorchScript archive, which holds code beside the weights, and is not read; give a "
            "state_dict: a fit takes OpenAI's CLIP as Hugging Face has it (openai/clip-vit-base-patch32, "
            "pytorch_model.bin), teachers clip and classes take it by --pretrained openai; of another "
            "archive that you trust, torch.save(torch.jit.load(FILE).state_dict(), NEW)"
        )
    if found := REFUSED_GLOBAL.search(str(error)):
        return (
            f"is no checkpoint of plain tensors: it holds {printable(found[1])}, which is code to run; "
            "nothing in it was run; give the weights alone, as torch.save(model.state_dict(), FILE) does"
        )
    return (
        f"is no checkpoint of plain tensors: it is cut off or of another kind ({type(error).__name__}); "
        "nothing in it was run; give a whole file of torch.save or safetensors"
    )


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load `state` into `module`; raises InputError listing keys missing, left over or mis-shaped."""
    own = module.state_dict()
    missing = sorted(set(own) - set(state))
    left_over = sorted(set(state) - set(own))
    shaped = [
        f"{name} {list(state[name].shape)} for {list(own[name].shape)}"
        for name in sorted(set(own) & set(state))
        if own[name].shape != state[name].shape
    ]
    complaints = [
        f"{len(names)} {word} ({', '.join(names[:SHOWN])}{', ...' if names[SHOWN:] else ''})"
        for word, names in (("missing", missing), ("left over", left_over), ("of another shape", shaped))
        if names
    ]
    if complaints:
        raise InputError(
            f"{where} does not fit the model: {'; '.join(complaints)}; give the right checkpoint"
        )
    module.load_state_dict(dict(state), strict=True)


def seeded(seed: int, build: Callable[[], Module]) -> Module:
    """What `build` makes with its random numbers drawn from `seed`; the caller's stay as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def weights_digest(module: nn.Module) -> str:
    """sha256 over name, dtype, shape and bytes of every tensor of `module`, sorted by name."""
    sha = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        sha.update(f"{name} {values.dtype} {list(values.shape)}\n".encode())
        sha.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
