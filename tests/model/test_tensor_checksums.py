"""A weights file tells of every bit that was changed in it, wherever it is read."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_model import make_domain, make_model, scramble

from weatherfm.errors import InputError
from weatherfm.model.adapter import merge_adapter, save_adapter
from weatherfm.model.loading import load_weights
from weatherfm.model.weights import copy_weights, open_tensors, read_header, save_weights
from weatherfm.training.starting.donor import find_donor


@pytest.fixture
def weights(tmp_path) -> Path:
    save_weights(tmp_path / "w.safetensors", scramble(make_model(make_domain(static=2))), {"steps": {9: 1, 10: 2}})
    return tmp_path / "w.safetensors"


def table_of(path: Path) -> tuple[int, dict]:
    """Bytes before the tensors, and what safetensors says of them, read by hand."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    return 8 + length, json.loads(content[8 : 8 + length])


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def everything(path: Path) -> dict[str, torch.Tensor]:
    model = load_weights(path)
    buffers = {name: torch.as_tensor(np.asarray(getattr(model.domain, name))) for name in ("mean", "std", "static")}
    return dict(model.named_parameters()) | buffers


def test_every_tensor_is_checked_as_it_is_read(weights):
    begin, table = table_of(weights)
    for name in sorted(table.keys() - {"__metadata__"})[::3]:
        last = begin + table[name]["data_offsets"][1] - 1
        flip(weights, last, bit=2)
        with pytest.raises(InputError, match=rf"is damaged: {name} is not what its checksum says"):
            load_weights(weights)
        flip(weights, last, bit=2)
    load_weights(weights)


def test_no_other_way_to_read_them_is_without(weights):
    donor = find_donor(str(weights), 2)
    begin, table = table_of(weights)
    flip(weights, begin + table["norm.weight"]["data_offsets"][0], bit=2)
    with pytest.raises(InputError, match=r"norm\.weight is not what"), donor.opened() as read:
        read("norm.weight")
    with pytest.raises(InputError, match=r"norm\.weight is not what"):
        copy_weights(weights, weights.with_name("copy"), {})
    with pytest.raises(InputError, match=r"norm\.weight is not what"):
        save_adapter(
            weights.with_name("a"),
            make_model(make_domain(static=2)),
            {},
            dict(make_model(make_domain(static=2)).named_parameters()),
            1.0,
            weights,
        )


def test_no_bit_of_the_header_changes_a_model_in_silence(weights):
    """Settings of the model, channels, grid, how weights came about: a digit of any made another model."""
    begin, _ = table_of(weights)
    whole = everything(weights)
    rng = np.random.default_rng(0)
    told = 0
    for at in rng.choice(begin, 150, replace=False):
        flip(weights, int(at), int(bit := rng.integers(8)))
        try:
            found = everything(weights)
        except InputError:
            told += 1
        else:
            assert found.keys() == whole.keys()
            assert all(torch.equal(found[name], value) for name, value in whole.items())
        flip(weights, int(at), int(bit))
    assert told > 140


def test_the_checksum_is_that_of_the_bytes(weights):
    begin, table = table_of(weights)
    header = json.loads(table["__metadata__"]["weatherfm"])
    entry = table["norm.weight"]
    content = weights.read_bytes()[begin + entry["data_offsets"][0] : begin + entry["data_offsets"][1]]
    what = f"norm.weight torch.float32 {entry['shape']}".encode()
    assert header["checksums"]["norm.weight"] == f"{zlib.crc32(what + content):08x}"
    assert header["checksums"].keys() == table.keys() - {"__metadata__"}


def test_files_of_before_are_read_without(weights):
    _, table = table_of(weights)
    header = json.loads(table["__metadata__"]["weatherfm"])
    for key in ("checksum", "checksums"):
        del header[key]
    tensors = load_file(weights)
    save_file(tensors, weights, metadata={"weatherfm": json.dumps(header)})
    assert read_header(weights)[2] == {"steps": {"9": 1, "10": 2}}
    torch.testing.assert_close(load_weights(weights).state_dict()["norm.weight"], tensors["norm.weight"])


def test_a_tensor_more_or_less_is_told(weights):
    _, table = table_of(weights)
    header, tensors = {"weatherfm": table["__metadata__"]["weatherfm"]}, load_file(weights)
    save_file({name: value for name, value in tensors.items() if name != "norm.weight"}, weights, metadata=header)
    with pytest.raises(InputError, match=r"list of tensors is not what it was \('norm.weight'\)"):
        read_header(weights)
    save_file(tensors | {"more": torch.zeros(2)}, weights, metadata=header)
    with pytest.raises(InputError, match="list of tensors"), open_tensors(weights):
        pass


def test_copies_and_adapters_have_their_own(weights, tmp_path):
    copy_weights(weights, weights, {"steps": 3})
    assert read_header(weights)[2] == {"steps": 3}
    model = load_weights(weights)
    changed = {name: value + (name == "norm.weight") for name, value in model.named_parameters()}
    save_adapter(tmp_path / "a.safetensors", model, {}, changed, 1.0, weights)
    merge_adapter(tmp_path / "a.safetensors", weights, tmp_path / "merged.safetensors")
    torch.testing.assert_close(load_weights(tmp_path / "merged.safetensors").norm.weight, changed["norm.weight"])
    begin, table = table_of(tmp_path / "a.safetensors")
    flip(tmp_path / "a.safetensors", begin + table["norm.weight"]["data_offsets"][0])
    for use in (
        lambda: load_weights(tmp_path / "a.safetensors", base=weights),
        lambda: merge_adapter(tmp_path / "a.safetensors", weights, tmp_path / "again.safetensors"),
    ):
        with pytest.raises(InputError, match=r"norm\.weight is not what"):
            use()
    assert not (tmp_path / "again.safetensors").exists()
