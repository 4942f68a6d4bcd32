"""Weight files: what is read, and what is refused with which words."""

import json
import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vglm.errors import LONGEST_MESSAGE, CheckpointError
from vglm.model.checkpoint import WeightFiles, read_tensors
from vglm.model.loading import load_pretrained, save_native

NAME = "pytorch_model.bin"


class Bomb:
    """Unpickling this writes a file: what a checkpoint from a stranger could do."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of three tensors in two shards."""
    shards = {"one.bin": {"a": torch.zeros(2, 3), "b": torch.ones(4)}, "two.bin": {"c": torch.ones(4)}}
    for name, tensors in shards.items():
        torch.save(tensors, tmp_path / name)
    weight_map = {key: name for name, tensors in shards.items() for key in tensors}
    (tmp_path / f"{NAME}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path


def test_inventory_and_stream(folder: Path) -> None:
    weights = WeightFiles.sharded(folder, NAME)
    assert [file.name for file in weights.files] == ["one.bin", "two.bin"]
    assert {key: stored.shape for key, stored in weights.tensors.items()} == {"a": (2, 3), "b": (4,), "c": (4,)}
    assert {key: tensor.tolist() for key, tensor in weights.stream()}["c"] == [1, 1, 1, 1]
    assert weights.are_equal("b", "c")
    assert not weights.are_equal("a", "b")


def test_single_files(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / NAME)
    save_file({"s": torch.zeros(3)}, tmp_path / "model.safetensors")
    assert WeightFiles.sharded(tmp_path, NAME).tensors.keys() == {"a"}
    assert WeightFiles.sharded(tmp_path, "model.safetensors").tensors["s"].shape == (3,)


def test_check_names_every_kind_of_problem(folder: Path) -> None:
    torch.save({"c": torch.ones(4, dtype=torch.int64)}, folder / "two.bin")
    with pytest.raises(CheckpointError) as caught:
        WeightFiles.sharded(folder, NAME).check({"a": (3, 2), "c": (4,), "d": (5,), "e": ()}, optional=["e"])
    for problem in (
        "'a' in one.bin has shape (2, 3), expected (3, 2)",
        "'c' in two.bin has dtype torch.int64",
        "'d' of shape (5,) is missing",
        "'b' in one.bin is unexpected",
    ):
        assert problem in str(caught.value)
    assert "'e'" not in str(caught.value)


def test_many_problems_are_counted(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'0' of shape .* and 17 more"):
        WeightFiles.sharded(folder, NAME).check({str(i): (1,) for i in range(19)})


def test_missing_shard(folder: Path) -> None:
    (folder / "one.bin").unlink()
    with pytest.raises(CheckpointError, match=r"one\.bin is missing, which should hold 'a' and 1 more"):
        WeightFiles.sharded(folder, NAME)


def test_shard_without_a_promised_key(folder: Path) -> None:
    torch.save({"a": torch.zeros(2, 3)}, folder / "one.bin")
    with pytest.raises(CheckpointError, match=r"one\.bin lacks 'b', which the index promises"):
        WeightFiles.sharded(folder, NAME)


def test_key_in_two_shards(folder: Path) -> None:
    torch.save({"c": torch.ones(4), "b": torch.ones(4)}, folder / "two.bin")
    with pytest.raises(CheckpointError, match=r"'b' is both in one\.bin and in two\.bin"):
        WeightFiles.sharded(folder, NAME)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../one.bin"}}', "{"])
def test_broken_index(folder: Path, index: str) -> None:
    (folder / f"{NAME}.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        WeightFiles.sharded(folder, NAME)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither pytorch_model\.bin nor .*; it holds nothing"):
        WeightFiles.sharded(tmp_path, NAME)


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.98])
@pytest.mark.parametrize("name", ["file.bin", "file.safetensors"])
def test_truncated_file(tmp_path: Path, name: str, share: float) -> None:
    file = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)({"a": torch.zeros(100)}, file)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read .* It should hold 'a'\."):
        read_tensors(file, ["a"])


@pytest.mark.parametrize("name", [NAME, "file.pt"])
def test_flipped_bytes_are_found_by_the_checksum(tmp_path: Path, name: str) -> None:
    tensors = {"a": torch.zeros(1000), "b": torch.ones(1000)}
    torch.save({"module": tensors} if name.endswith("pt") else tensors, tmp_path / name)
    content = bytearray((tmp_path / name).read_bytes())
    content[content.index(torch.ones(1000).numpy().tobytes()) + 100] ^= 1
    (tmp_path / name).write_bytes(content)
    weights = WeightFiles._take(tmp_path, {tmp_path / name: ()})
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read \('.*data/1' does not fit its checksum\)"):
        list(weights.stream())


def test_no_message_advises_to_unpickle_without_safety(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("no pickle")
    with pytest.raises(CheckpointError, match=r"cannot be read \(") as caught:
        read_tensors(tmp_path / NAME)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("content", [torch.zeros(2), {"a": 1, "b": torch.zeros(2)}, {1: torch.zeros(2)}])
def test_file_of_something_else(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / NAME)
    with pytest.raises(CheckpointError, match=r"must hold"):
        read_tensors(tmp_path / NAME)


def test_format_of_pytorch_before_1_6(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3.0)}, tmp_path / NAME, _use_new_zipfile_serialization=False)
    assert read_tensors(tmp_path / NAME)["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("name", ["file.bin", "file.pt"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, name: str, new_format: bool) -> None:
    target = tmp_path / "executed"
    content = {"a": torch.zeros(2), "b": Bomb(target)}
    torch.save({"module": content}, tmp_path / name, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"asks for 'pathlib\.Path\.touch'|asks for .*, .* It was not run"):
        read_tensors(tmp_path / name)
    assert not target.exists()

    pickle.loads(pickle.dumps(Bomb(target)))  # the bomb is live
    assert target.exists()


def test_random_states_of_a_training_run_are_read(tmp_path: Path) -> None:
    states = {"random_rng_state": random.getstate(), "np_rng_state": np.random.get_state()}
    content = {"module": {"a": torch.ones(2)}, "client_lr_scheduler": {"num_iters": 300}, **states}
    torch.save(content, tmp_path / "file.pt")
    assert read_tensors(tmp_path / "file.pt")["a"].tolist() == [1, 1]


def test_stored_random_states_are_read(reference: Path) -> None:
    content = read_tensors(reference / "sat_lora" / "300" / "mp_rank_00_model_states.pt")
    assert "transformer.layers.0.attention.dense.matrix_A.0" in content


def test_sat_file_without_weights(tmp_path: Path) -> None:
    torch.save({"optimizer": {}}, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match="no entry `module`"):
        read_tensors(tmp_path / "file.pt")


def test_sat_iterations(reference: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sat"
    shutil.copytree(reference / "sat_layout", folder)
    assert WeightFiles.sat(folder).files[0].parent.name == "1"
    (folder / "latest").write_text("7")
    with pytest.raises(CheckpointError, match="names iteration '7', but there is no"):
        WeightFiles.sat(folder)
    (folder / "latest").unlink()
    assert WeightFiles.sat(folder).files[0].parent.name == "1"
    shutil.copytree(folder / "1", folder / "2")
    with pytest.raises(CheckpointError, match=r"found 1/mp_rank_00.*2/mp_rank_00"):
        WeightFiles.sat(folder)
    (folder / "latest").write_text("2\n")
    assert WeightFiles.sat(folder).files[0].parent.name == "2"
    shutil.copy(folder / "2" / "mp_rank_00_model_states.pt", folder / "2" / "mp_rank_01_model_states.pt")
    with pytest.raises(CheckpointError, match="split for model parallelism"):
        WeightFiles.sat(folder)


# --- files from strangers -------------------------------------------------------------------------------------------


def _packed_anew(file: Path, **more: bytes) -> None:
    with zipfile.ZipFile(file) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (records | more).items():
            archive.writestr(name, content)


@pytest.mark.parametrize("name", [NAME, "file.pt"])
def test_compressed_records_are_refused(tmp_path: Path, name: str) -> None:
    tensors = {"a": torch.zeros(1000), "b": torch.ones(1000)}
    torch.save({"module": tensors} if name.endswith("pt") else tensors, tmp_path / name)
    _packed_anew(tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"{name} was packed anew: .* and \d more is compressed"):
        read_tensors(tmp_path / name)


def test_a_small_file_that_unpacks_to_much_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(10)}, tmp_path / NAME)
    _packed_anew(tmp_path / NAME, bomb=bytes(2**27))
    assert (tmp_path / NAME).stat().st_size < 2**20
    with pytest.raises(CheckpointError, match="is compressed"):
        read_tensors(tmp_path / NAME)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(1).expand(10**12), torch.zeros(3, 3).to_sparse(), torch.zeros(2, device="meta")],
    ids=["expanded", "sparse", "meta"],
)
def test_tensors_without_their_numbers_are_refused(tmp_path: Path, tensor: torch.Tensor, new_format: bool) -> None:
    torch.save({"a": tensor}, tmp_path / NAME, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"'a' is no plain tensor|cannot be read"):
        read_tensors(tmp_path / NAME)


def test_one_storage_for_many_tensors_is_refused(tmp_path: Path) -> None:
    shared = torch.zeros(10_000)
    torch.save({str(i): shared for i in range(2)}, tmp_path / NAME)
    assert len(read_tensors(tmp_path / NAME)) == 2
    torch.save({str(i): shared for i in range(100)}, tmp_path / NAME)
    with pytest.raises(CheckpointError, match=r"bytes, too few for tensors of 4,000,000"):
        read_tensors(tmp_path / NAME)


@pytest.mark.parametrize("header", [b'{"a":' + b"[" * 10**5, b"{}", b'{"a":{"dtype":"F32","shape":[1e99]}}', b""])
@pytest.mark.parametrize("length", [None, 0, 2**40, 2**64 - 1])
def test_headers_of_safetensors(tmp_path: Path, header: bytes, length: int | None) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header)
    try:
        assert read_tensors(file) == {}
    except CheckpointError as error:
        assert len(str(error)) < 500  # noqa: PT017


@pytest.mark.parametrize("content", [b"9" * 2**20, b"../../1", b"\xff", b"", b"1\0", b"x" * 300])
def test_latest_names_an_iteration(reference: Path, tmp_path: Path, content: bytes) -> None:
    folder = shutil.copytree(reference / "sat_layout", tmp_path / "sat")
    (folder / "latest").write_bytes(content)
    with pytest.raises(CheckpointError, match="latest") as caught:
        WeightFiles.sat(folder)
    assert len(str(caught.value)) < LONGEST_MESSAGE


@pytest.mark.parametrize("name", ["1/mp_rank_00_model_states.pt", "latest"])
def test_pipes_in_place_of_files(reference: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(reference / "sat_layout", tmp_path / "sat")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    if name == "latest":
        assert WeightFiles.sat(folder).files[0].parent.name == "1"  # as if there were none
    else:
        with pytest.raises(CheckpointError, match="is no regular file"):
            WeightFiles.sat(folder)


def test_written_files_can_be_read_as_the_umask_says(random_model_folder: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        model, processor = load_pretrained(random_model_folder)
        save_native(model, processor, tmp_path / "native")
    finally:
        os.umask(before)
    assert {oct(file.stat().st_mode & 0o777) for file in (tmp_path / "native").iterdir()} == {"0o640"}
