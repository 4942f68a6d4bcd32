"""How much memory does loading a checkpoint take, against the promise of the model plus one shard?

    python benchmarks/loading.py
    python benchmarks/loading.py --cases nf4 int8

Writes a random checkpoint in float16 (about 300 MB in the original layouts; about 700 MB in 8 shards in the native one,
to be quantised), loads it in a fresh process for each case, and prints the growth of that process at its peak divided
by (bytes of the loaded model + bytes of the largest weight file): 1 or less keeps the promise. `nf4 again` and
`int8 again` load what was quantised and saved; their answers must be those of the model that was saved, to the bit.

Measured on 2 CPU cores: hf 0.90 and 0.94 (to float16 and float32), sat 0.92 and 0.94, nf4 0.78, int8 0.87 (through
transformers' own quantised loading 5.91 and 3.32). Native files that are taken as they are stay mapped and are read
when the model first answers, so their growth is near nothing: native float16 0.03, nf4 again 0.16, int8 again 0.09.
"""

import argparse
import gc
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TOKENIZER = Path(__file__).parents[1] / "tests" / "reference" / "visualglm-mini-a" / "hf_layout"
SIZES: dict[str, Any] = {
    "num_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "vocab_size": 30_000,
    "max_sequence_length": 512,
    "mask_token_id": 1000,
    "gmask_token_id": 1001,
    "bos_token_id": 1004,
    "eos_token_id": 1005,
    "pad_token_id": 3,
}
LARGER: dict[str, Any] = {**SIZES, "num_layers": 24, "hidden_size": 1024, "num_attention_heads": 16}
VISION = {"num_layers": 6, "hidden_size": 384, "num_attention_heads": 6, "image_size": 224, "patch_size": 14}
QFORMER = {
    "num_layers": 6,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "vocab_size": 32,
    "is_decoder": [True, False] * 3,
    "cross_attn_hidden_size": 384,
}
SHARDS = 5
NATIVE_SHARD = "90MB"
WEIGHTS = (".bin", ".pt", ".safetensors")
CASES: dict[str, tuple[str, dict[str, str]]] = {
    "hf float16": ("hf", {"dtype": "float16"}),
    "hf float32": ("hf", {"dtype": "float32"}),
    "sat float16": ("sat", {"dtype": "float16"}),
    "sat float32": ("sat", {"dtype": "float32"}),
    "native float16": ("native", {"dtype": "float16"}),
    "nf4": ("native", {"dtype": "float16", "quantization": "nf4"}),
    "int8": ("native", {"dtype": "float16", "quantization": "int8"}),
    "nf4 again": ("saved-nf4", {"dtype": "float16"}),
    "int8 again": ("saved-int8", {"dtype": "float16"}),
}
"""What is loaded and how, by the name of a case."""


def write_original(folder: Path, layout_name: str, sizes: dict[str, Any]) -> None:
    """Write random weights in an original layout."""
    import torch

    from vglm.model.conversion import HUGGING_FACE, SAT, key_map, read_config
    from vglm.model.loading import empty_model

    layout = HUGGING_FACE if layout_name == "hf" else SAT
    raw = {**sizes, layout.vision_section: VISION, layout.qformer_section: QFORMER}
    config = read_config(raw, layout)
    state = empty_model(config).state_dict()
    shapes = {entry.source: entry.to_source(state).shape for entry in key_map(config, layout)}
    tensors = {key: (0.02 * torch.randn(shape)).half() for key, shape in shapes.items()}
    tensors[f"{layout.head}.weight"] = tensors["transformer.word_embeddings.weight"].clone()

    folder.mkdir()
    (folder / layout.config_file).write_text(json.dumps(raw))
    if layout is SAT:
        (folder / "1").mkdir()
        (folder / "latest").write_text("1")
        torch.save({"module": tensors}, folder / "1" / "mp_rank_00_model_states.pt")
    else:
        weight_map, share = {}, sum(tensor.nbytes for tensor in tensors.values()) / SHARDS
        shards: dict[str, dict[str, torch.Tensor]] = {}
        written = 0
        for key, tensor in tensors.items():
            weight_map[key] = f"pytorch_model-{int(written / share)}.bin"
            shards.setdefault(weight_map[key], {})[key] = tensor
            written += tensor.nbytes
        for name, shard in shards.items():
            torch.save(shard, folder / name)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
        shutil.copy(TOKENIZER / "ice_text.model", folder)


def write_native(folder: Path) -> None:
    """Write random weights of the larger sizes in the native layout, in several shards."""
    from vglm.model.loading import load_pretrained

    original = folder.with_name("original")
    write_original(original, "hf", LARGER)
    model, processor = load_pretrained(original, dtype="float16")
    shutil.rmtree(original)
    model.save_pretrained(folder, max_shard_size=NATIVE_SHARD)
    processor.save_pretrained(folder)


def prepare(folder: Path, source: str) -> None:
    """Make one of the checkpoints below a folder, unless it is there."""
    from vglm.model.loading import load_pretrained, save_native

    if source == "native":
        write_native(folder / source)
    elif source.startswith("saved-"):
        quantization: Any = source.removeprefix("saved-")
        model, processor = load_pretrained(folder / "native", dtype="float16", quantization=quantization)
        save_native(model, processor, folder / source)
        (folder / f"{source}.txt").write_text(fingerprint(model))
    else:
        write_original(folder / source, source, SIZES)


def fingerprint(model: Any) -> str:
    """SHA-256 of the logits for a few tokens without an image."""
    import hashlib

    import torch

    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[5, 6, 7, 1001, 1004]], device=model.device)).logits
    return hashlib.sha256(logits.float().cpu().numpy().tobytes()).hexdigest()


def measure(folder: Path, arguments: dict[str, Any]) -> None:
    """Load once and print the growth in bytes, the model's size in bytes and a fingerprint of its answers."""
    import psutil
    import torch

    from vglm.model.loading import load_pretrained

    torch.set_num_threads(1)
    load_pretrained(TOKENIZER, device_map="cpu", **arguments)  # what a first call brings in is no part of the question
    gc.collect()
    before = psutil.Process().memory_info().rss
    model, _ = load_pretrained(folder, device_map="cpu", tokenizer=TOKENIZER, **arguments)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps([peak - before, stored_bytes(model), fingerprint(model)]))


def stored_bytes(model: Any) -> int:
    """Bytes of a model's tensors, tied ones once, the scales of quantised ones included."""
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in model.state_dict().values()}
    return sum(tensors.values())


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), metavar="CASE", help="which")
    parser.add_argument("--prepare", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(Path(arguments.prepare[0]), arguments.prepare[1])
        return
    if arguments.measure:
        measure(Path(arguments.measure[0]), json.loads(arguments.measure[1]))
        return
    print(f"{'case':16}{'growth MB':>10}{'model MB':>10}{'shard MB':>10}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for case in arguments.cases:
            source, how = CASES[case]
            needed = ["native", source] if source.startswith("saved-") else [source]
            for layout in needed:
                if not (folder / layout).exists():
                    _run("--prepare", str(folder), layout)
            growth, model, answers = json.loads(
                _run("--measure", str(folder / source), json.dumps(how)).splitlines()[-1]
            )
            shard = max(file.stat().st_size for file in (folder / source).rglob("*") if file.suffix in WEIGHTS)
            numbers = "".join(f"{value / 1e6:10.0f}" for value in (growth, model, shard))
            saved = folder / f"{source}.txt"
            note = "" if not saved.exists() else "  same answers" if saved.read_text() == answers else "  OTHER ANSWERS"
            print(f"{case:16}{numbers}{growth / (model + shard):8.2f}{note}", flush=True)


def _run(*arguments: str) -> str:
    """Run this file in a process of its own; returns what it printed."""
    return subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
