"""The tensors of all ranks in one folder of files, one a rank, readable on any layout and by PyTorch's own tools.

Of torch.distributed.checkpoint this takes the planners and the reader and writer of files. `dcp.save` and `dcp.load`
around them are left out: they warn in a process without a group, load any pickle, and when loading want the same
tensors on all ranks.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner, FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import SavePlan

from weatherfm.errors import InputError
from weatherfm.file_errors import naming
from weatherfm.training.parallel.channel_rows import local
from weatherfm.training.ranks.coordination import Coordination

_METADATA = ".metadata"
_NAMED = 5  # so many names in a message


class StagedTensors(DefaultSavePlanner):
    """A copy of tensors on the CPU, with the plan of how all ranks together write them.

    Args:
        tensors: by name, on any device. The same name on several ranks: parts of one DTensor, or copies.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self.set_up_planner(dict(tensors))
        self.copies = {name: _own_part(tensor).to("cpu", copy=True) for name, tensor in tensors.items()}

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        """The copy of this rank's part of a tensor."""
        return self.copies[index.fqn]


def write_tensors(folder: Path, staged: StagedTensors, ranks: Coordination) -> dict[str, str]:
    """Write and flush to disk; what several ranks hold is written by one of them. All ranks must call it.

    Returns:
        On rank 0 the SHA-256 of every file by name; nothing on the others.

    Raises:
        RuntimeError: read back, the list of tensors is not that of what the ranks hold.
    """
    writer = _Writer(folder, per_thread_copy_ahead=0, overwrite=False)
    writer.set_up_storage_writer(ranks.rank == 0)

    def make_plans(offered: list[SavePlan]) -> list[SavePlan]:
        return writer.prepare_global_plan(staged.create_global_plan(offered)[0])

    def write_own() -> tuple[list[Any], dict[str, str], list[str]]:
        with naming(folder):
            results = writer.write_data(staged.finish_plan(plan), staged).wait()
        files = {part.storage_data.relative_path for part in results}
        return results, {name: sha256(folder / name) for name in files}, list(staged.copies)

    def finish(written: list[tuple[list[Any], dict[str, str], list[str]]]) -> list[dict[str, str]]:
        with naming(folder / _METADATA):
            writer.finish(staged.metadata, [results for results, _, _ in written])
        _require_names(folder, {name for _, _, names in written for name in names})
        digests = {name: digest for _, own, _ in written for name, digest in own.items()}
        return [digests | {_METADATA: sha256(folder / _METADATA)}, *[{}] * (ranks.world - 1)]

    plan = ranks.decide(lambda: writer.prepare_local_plan(staged.create_local_plan()), make_plans)
    return ranks.decide(write_own, finish)


def read_tensors(folder: Path, tensors: Mapping[str, Tensor], ranks: Coordination) -> None:
    """Fill this rank's tensors in place, whatever layout they were written on. All ranks must call it.

    Raises:
        InputError: on all ranks, when one has a tensor that is not in the folder or has another shape there.
    """
    metadata = _read_metadata(folder)
    ranks.all_do(lambda: _require_fit(metadata, tensors, folder))
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(tensors), metadata, is_coordinator=True)
    reader = FileSystemReader(folder)
    reader.set_up_storage_reader(metadata, is_coordinator=True)
    with torch.no_grad():
        reader.read_data(planner.create_local_plan(), planner).wait()


def tensor_names(folder: Path) -> set[str]:
    """Names of all tensors in a folder."""
    return set(_read_metadata(folder).state_dict_metadata)


def sha256(path: Path) -> str:
    """Digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_names(folder: Path, held: set[str]) -> None:
    if different := sorted(tensor_names(folder) ^ held):
        raise RuntimeError(f"{folder} does not hold what the ranks do: {', '.join(different[:_NAMED])}")


def _own_part(tensor: Tensor) -> Tensor:
    return local(tensor.detach())


def _require_fit(metadata: Metadata, tensors: Mapping[str, Tensor], folder: Path) -> None:
    stored, wrong = metadata.state_dict_metadata, []
    for name, tensor in tensors.items():
        found = stored.get(name)
        if not isinstance(found, TensorStorageMetadata):  # anything else would be unpickled when read
            wrong.append(f"{name} is not there")
        elif found.size != tensor.shape:
            wrong.append(f"{name} has shape {list(found.size)} there, {list(tensor.shape)} here")
    if wrong:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise InputError(
            f"checkpoint {folder} does not fit the model: {'; '.join(wrong[:_NAMED])}{more}; "
            "start anew in another run folder"
        )


class _Writer(FileSystemWriter):
    """Its metadata name neither the folder nor the time of writing: the same tensors give the same description."""

    def storage_meta(self) -> StorageMeta:
        return StorageMeta()


class _MetadataUnpickler(pickle.Unpickler):
    """Makes only what the writer puts into its metadata: a pickle can name any function to call."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):  # how Python 3.11.2 and its like write a member of an enum
            return _enum_member
        if (module, name) in _IN_METADATA or (
            module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in the metadata of tensors")


def _enum_member(kind: type[Enum], name: str) -> Enum:
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        raise pickle.UnpicklingError(f"{name} of {kind} has no place in the metadata of tensors")
    return kind[name]


_IN_METADATA = {
    *((kind.__module__, kind.__qualname__) for kind in (Metadata, TensorStorageMetadata, TensorProperties)),
    *((kind.__module__, kind.__qualname__) for kind in (ChunkStorageMetadata, MetadataIndex, StorageMeta)),
    ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
}


def _read_metadata(folder: Path) -> Metadata:
    with (folder / _METADATA).open("rb") as file:
        return _MetadataUnpickler(file).load()
