"""Weights on this machine: where they are, what is in them, and whether they fit; nothing else.

Every loader goes through here, so no file can run code, and a wrong file is refused by name.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from shortft_core import catalog, download
from shortft_core.artifacts import file_sha256
from shortft_core.catalog import Weights
from shortft_core.errors import MissingWeightsError, WeightsError
from shortft_core.settings import settings
from shortft_core.spec import Source

BUNDLED: Final = Path(__file__).parent / "bundled"
TORCH_SUFFIXES: Final = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES: Final = (".safetensors", *TORCH_SUFFIXES)
# Old repositories also hold the same weights as ckpt, bin, msgpack, h5 and in half precision.
_FOLDER_FILES: Final = (
    "*.json",
    "*.txt",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "*/model.safetensors",
    "*/model-*-of-*.safetensors",
    "*/diffusion_pytorch_model.safetensors",
    "*/diffusion_pytorch_model-*-of-*.safetensors",
)
_NOT_NEEDED: Final = ("safety_checker/*",)
_FETCH: Final = "Run `shortft models fetch` where the hub can be reached, or give a local path"


def locate(weights: Weights, *, field: str, revision: str | None = None) -> Path:
    """The file on this machine if `weights` names exactly one, else the folder.

    Fetches what is not here yet. Raises MissingWeightsError if that is impossible, WeightsError
    if a file is not the one whose sha256 the catalog holds.
    """
    if weights.url is not None:
        return _download(weights.url, weights, field)
    if weights.bundled is not None:
        folder = BUNDLED / weights.bundled
    else:
        folder = _snapshot(weights, revision or weights.revision, field)
    for name in weights.files or ("",):
        if not (folder / name).exists():
            owner = weights.hub_id or weights.bundled
            remedy = "Install the package again" if weights.bundled else _FETCH
            raise MissingWeightsError(
                field, f"{name or 'the folder'} of {owner} is missing", remedy
            )
    for name, expected in weights.sha256.items():
        _verify(folder / name, expected, field)
    return folder / weights.files[0] if len(weights.files) == 1 else folder


def _download(url: str, weights: Weights, field: str) -> Path:
    (name,) = weights.files
    try:
        return download.fetch(url, name=name, sha256=weights.sha256.get(name))
    except WeightsError as error:  # names the file; the user knows the field
        raise type(error)(field, error.problem, error.remedy) from error


def _snapshot(weights: Weights, revision: str | None, field: str) -> Path:
    """The folder of a hub repository, from the cache or the hub."""
    from huggingface_hub import snapshot_download

    wanted = weights.files or _FOLDER_FILES
    try:
        return Path(
            snapshot_download(
                str(weights.hub_id),
                revision=revision,
                local_files_only=settings().offline,
                allow_patterns=list(wanted),
                ignore_patterns=list(_NOT_NEEDED),
            )
        )
    except (OSError, ValueError) as error:  # every error of the hub client is one of the two
        files = ", ".join(weights.files) or "the repository"
        raise MissingWeightsError(
            field, f"{files} of {weights.hub_id} is not available ({_first_line(error)})", _FETCH
        ) from error


def source_path(
    source: Source | None,
    choices: Mapping[str, Mapping[str, Weights]],
    part: str = "model",
    *,
    field: str,
) -> Path:
    """Where one part of a reward's or shortcut's weights is; None stands for the first choice.

    A hub id is expected to hold the files that the first choice names. Raises UnknownNameError,
    MissingWeightsError, WeightsError.
    """
    if source is not None and source.path is not None:
        if not Path(source.path).exists():
            raise MissingWeightsError(field, f"{source.path} does not exist", "Correct the path")
        return Path(source.path)
    default = next(iter(choices.values()))[part]
    if source is not None and source.id is not None:
        theirs = Weights(hub_id=source.id, files=default.files, licence="stated by its owner")
        return locate(theirs, field=field, revision=source.revision)
    if source is not None and source.name is not None:
        default = catalog.find(choices, source.name, f"{field}.name")[part]
    return locate(default, field=field)


def checkpoint_file(path: Path, *, field: str) -> Path:
    """The one checkpoint of a folder, or the file itself."""
    if path.is_file():
        return path
    found = sorted(file for file in path.glob("*") if file.suffix in SUFFIXES)
    if len(found) != 1:
        listed = ", ".join(file.name for file in found) or "none"
        raise WeightsError(
            field,
            f"{path} should hold one checkpoint ({', '.join(SUFFIXES)}), found {listed}",
            "Give the path of the checkpoint itself",
        )
    return found[0]


def read_tensors(path: Path, *, field: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU, in the precision of the file.

    Accepts safetensors and torch files, flat or nested under `state_dict`, with or without the
    `module.` of a wrapped model. Raises MissingWeightsError; WeightsError for anything that is
    not a finite tensor, pickled objects above all.
    """
    if not path.is_file():
        raise MissingWeightsError(field, f"{path} is missing", "Correct the path")
    content = (
        _read_safetensors(path, field)
        if path.suffix == ".safetensors"
        else _read_torch(path, field)
    )
    tensors = _only_tensors(content, path, field)
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    refuse_non_finite(tensors, field=field, path=path)
    return tensors


def refuse_non_finite(tensors: Mapping[str, Tensor], *, field: str, path: Path) -> None:
    """Raises WeightsError if a weight is NaN or infinite."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(
                field, f"{path} holds NaN or infinite values in {name}", "Fetch or save it again"
            )


def refuse_other_keys(
    expected: Mapping[str, torch.Size], tensors: Mapping[str, Tensor], *, field: str, path: Path
) -> None:
    """Raises WeightsError unless names and shapes are exactly the expected ones."""
    faults = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - expected.keys()),
        "misshapen": [
            f"{name} {tuple(tensors[name].shape)} instead of {tuple(shape)}"
            for name, shape in expected.items()
            if name in tensors and tensors[name].shape != shape
        ],
    }
    told = [f"{len(names)} {kind}: {_first_few(names)}" for kind, names in faults.items() if names]
    if told:
        raise WeightsError(
            field,
            f"{path} does not fit its model ({'; '.join(told)})",
            "Use the checkpoint that belongs to this model and configuration",
        )


def load_strict(
    module: nn.Module, tensors: Mapping[str, Tensor], *, field: str, path: Path
) -> None:
    """Copies the tensors into the module, in the module's precision; all keys, no other keys."""
    expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
    refuse_other_keys(expected, tensors, field=field, path=path)
    module.load_state_dict(dict(tensors), strict=True)


def _read_safetensors(path: Path, field: str) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, field, error) from error


def _read_torch(path: Path, field: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            field,
            f"{path} holds pickled objects, which could run code, or is not a checkpoint",
            "Save its state_dict, or convert it to safetensors",
        ) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise _unreadable(path, field, error) from error


def _only_tensors(content: Any, path: Path, field: str) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(field, f"{path} holds no tensors by name", "Save the model's state_dict")
    tensors: dict[str, Tensor] = {}
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise WeightsError(
                field,
                f"{path} holds a {type(value).__name__} under {name!r}, not a tensor",
                "Save the model's state_dict only",
            )
        tensors[str(name)] = value.detach()
    return tensors


def _verify(path: Path, expected: str, field: str) -> None:
    actual = file_sha256(path)
    if actual != expected:
        raise WeightsError(
            field,
            f"{path} has sha256 {actual}, expected {expected}",
            "Delete it and fetch it again",
        )


def _unreadable(path: Path, field: str, error: Exception) -> WeightsError:
    return WeightsError(
        field, f"{path} cannot be read ({_first_line(error)})", "Fetch or save it again"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _first_few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
