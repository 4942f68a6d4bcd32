"""Every layout becomes every other with the same numbers; what is written is what the original's tools expect."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from programs import run_program
from safetensors.torch import load_file
from torch import Tensor, nn

from vglm.cli import main
from vglm.errors import CheckpointError, ConfigError
from vglm.model import export
from vglm.model.export import convert
from vglm.model.loading import load_pretrained, save_native

CONFIG = {"hf": "config.json", "sat": "model_config.json"}
REFERENCE_FOLDER = {"hf": "hf_layout", "sat": "sat_layout"}


@pytest.fixture(scope="module")
def native(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference model in the native layout, half precision as stored."""
    return convert(reference / "hf_layout", tmp_path_factory.mktemp("native") / "model")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    files = [*folder.glob("*.bin"), *folder.glob("*/*.pt")]
    content = [torch.load(file, weights_only=True) for file in files]
    return {key: tensor for part in content for key, tensor in part.get("module", part).items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        tensor.dtype == right[name].dtype and torch.equal(tensor, right[name]) for name, tensor in left.items()
    )


def read_json(file: Path) -> Any:
    return json.loads(file.read_text("utf-8"))


@pytest.mark.parametrize("to", ["hf", "sat"])
@pytest.mark.parametrize("source", ["native", "hf_layout", "sat_layout"])
def test_writes_the_originals_files(reference: Path, native: Path, tmp_path: Path, source: str, to: str) -> None:
    folder = native if source == "native" else reference / source
    arguments = [str(folder), str(tmp_path / "out"), "--to", to, "--tokenizer", str(reference / "hf_layout")]
    assert main(["convert", *arguments]) == 0
    original = reference / REFERENCE_FOLDER[to]
    assert same(read_tensors(tmp_path / "out"), read_tensors(original))
    assert read_json(tmp_path / "out" / CONFIG[to]) == read_json(original / CONFIG[to])
    if to == "hf":
        index, expected = (
            read_json(folder / "pytorch_model.bin.index.json") for folder in (tmp_path / "out", original)
        )
        assert index["metadata"] == expected["metadata"]
        assert list(index["weight_map"]) == list(expected["weight_map"])
        assert read_json(tmp_path / "out" / "tokenizer_config.json") == read_json(original / "tokenizer_config.json")
        assert (tmp_path / "out" / "ice_text.model").read_bytes() == (original / "ice_text.model").read_bytes()
    else:
        assert (tmp_path / "out" / "latest").read_text() == "1"


@pytest.mark.parametrize("to", ["hf", "sat"])
def test_there_and_back_is_bit_equal_with_the_originals_logits(
    reference: Path, native: Path, tmp_path: Path, to: Any
) -> None:
    there = convert(native, tmp_path / "there", to=to)
    back = convert(there, tmp_path / "back", tokenizer=reference / "hf_layout")
    assert same(load_file(back / "model.safetensors"), load_file(native / "model.safetensors"))
    for name in ("config.json", "generation_config.json", "processor_config.json"):
        assert read_json(back / name) == read_json(native / name)

    expected = np.load(reference / "expected.npz")
    model, _ = load_pretrained(there, tokenizer=reference / "hf_layout")
    inputs = {
        "input_ids": torch.from_numpy(expected["zh_single/input_ids_hf"])[None],
        "pixel_values": torch.from_numpy(expected["images/0/pixel_values"])[None],
    }
    with torch.no_grad():
        logits = model(**inputs).logits[0, expected["zh_single/logits_positions"]]
    torch.testing.assert_close(logits, torch.from_numpy(expected["zh_single/logits"]), atol=1e-4, rtol=0)


def test_wider_types_keep_the_rounded_frequencies(reference: Path, native: Path, tmp_path: Path) -> None:
    written = read_tensors(convert(native, tmp_path / "wide", to="hf", dtype="float32"))
    assert read_json(tmp_path / "wide" / "config.json")["torch_dtype"] == "float32"
    assert same(
        {key: tensor for key, tensor in written.items() if "inv_freq" not in key},
        {key: t.float() for key, t in read_tensors(reference / "hf_layout").items() if "inv_freq" not in key},
    )
    frequencies = written["transformer.layers.1.attention.rotary_emb.inv_freq"]
    assert frequencies.tolist() == torch.tensor([1, 0.1, 0.01, 0.001]).half().float().tolist()


@pytest.mark.parametrize("to", ["hf", "sat"])
def test_other_sizes_untied_and_in_shards(
    random_model_folder: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: Any
) -> None:
    model, processor = load_pretrained(random_model_folder)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach() + 1)
    save_native(model, processor, tmp_path / "untied")
    monkeypatch.setattr(export, "_SHARD_BYTES", 50_000)
    there = convert(tmp_path / "untied", tmp_path / "there", to=to)
    if to == "hf":
        shards = sorted(file.name for file in there.glob("*.bin"))
        assert len(shards) > 4
        assert shards[-1] == f"pytorch_model-{len(shards):05}-of-{len(shards):05}.bin"
        assert sorted(set(read_json(there / "pytorch_model.bin.index.json")["weight_map"].values())) == shards
        for shard in shards:
            tensors = torch.load(there / shard, weights_only=True)
            assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors.values()) <= 50_000
    back = convert(there, tmp_path / "back", tokenizer=reference / "hf_layout")
    assert same(load_file(back / "model.safetensors"), load_file(tmp_path / "untied" / "model.safetensors"))
    before, after = read_json(tmp_path / "untied" / "config.json"), read_json(back / "config.json")
    del before["qformer_config"]["vocab_size"], after["qformer_config"]["vocab_size"]  # unused: it reads no words
    assert after == before


def test_what_a_layout_cannot_hold(reference: Path, native: Path, tmp_path: Path) -> None:
    odd = Path(shutil.copytree(native, tmp_path / "odd"))
    config = read_json(odd / "config.json")
    config["text_config"]["rope_theta"] = 500.0
    (odd / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"text_config\.rope_theta must be 10000\.0, got 500\.0"):
        convert(odd, tmp_path / "out", to="hf")
    with pytest.raises(ConfigError, match=r"a LoRA fine-tune .*, which only --to native can write"):
        convert(reference / "sat_lora", tmp_path / "out", to="sat", tokenizer=reference / "hf_layout")
    quantized, processor = load_pretrained(native, quantization="nf4")
    save_native(quantized, processor, tmp_path / "nf4")
    with pytest.raises(ConfigError, match="nf4 is quantised, which the original SAT layout has no form for"):
        convert(tmp_path / "nf4", tmp_path / "out", to="sat")
    with pytest.raises(ConfigError, match="to must be one of native, hf, sat, got 'gguf'"):
        convert(native, tmp_path / "out", to="gguf")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("to", "failure"), [("hf", KeyboardInterrupt()), ("sat", OSError(28, "No space left"))])
def test_an_interrupted_export_leaves_nothing(
    native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: Any, failure: BaseException
) -> None:
    def fail(content: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise failure

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(CheckpointError if isinstance(failure, OSError) else KeyboardInterrupt):
        convert(native, tmp_path / "deep" / "out", to=to)
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_killed_conversion_leaves_no_destination_and_the_next_tidies_up(reference: Path, tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys, torch\n"
        "from vglm.cli import main\n"
        "torch.save = lambda content, file: (file.write_bytes(b'half'), os.kill(os.getpid(), 9))\n"
        "main(sys.argv[1:])"
    )
    arguments = ["convert", str(reference / "hf_layout"), str(tmp_path / "out"), "--to", "hf"]
    done = run_program("-c", code, *arguments)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".out.*.partial/content/*.bin"))) == 1
    assert not (tmp_path / "out").exists()
    assert main(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
