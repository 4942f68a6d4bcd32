"""How much memory does loading an original checkpoint take, against the promise of the model plus one shard?

    python benchmarks/loading.py

Writes a random checkpoint of about 300 MB (float16) in both original layouts, loads each in a fresh process, and prints
the growth of that process at its peak divided by (bytes of the loaded model + bytes of the largest weight file): 1 or
less keeps the promise. Measured on 2 CPU cores: 0.99 and 0.94 (Hugging Face layout, to float16 and
float32), 0.92 and 0.94 (SAT, one file).
"""

import argparse
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


def write_checkpoint(folder: Path, layout_name: str) -> int:
    """Write random weights in an original layout; returns the size of the largest weight file in bytes."""
    import torch

    from vglm.model.conversion import HUGGING_FACE, SAT, key_map, read_config
    from vglm.model.modeling import VisualGlmForConditionalGeneration

    layout = HUGGING_FACE if layout_name == "hf" else SAT
    raw = {**SIZES, layout.vision_section: VISION, layout.qformer_section: QFORMER}
    config = read_config(raw, layout)
    with torch.device("meta"):
        state = VisualGlmForConditionalGeneration(config).state_dict()
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
    return max(file.stat().st_size for file in [*folder.glob("*.bin"), *folder.glob("*/*.pt")])


def measure(folder: Path, dtype: str) -> None:
    """Load once and print the growth in bytes and the model's size in bytes."""
    import psutil

    from vglm.model.loading import load_pretrained

    load_pretrained(TOKENIZER)  # whatever a first call brings in is no part of the question
    before = psutil.Process().memory_info().rss
    model, _ = load_pretrained(folder, dtype=dtype, tokenizer=TOKENIZER)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps([peak - before, sum(parameter.nbytes for parameter in model.parameters())]))


def main() -> None:
    """Print one line for each layout and target dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(Path(arguments.measure[0]), arguments.measure[1])
        return
    print(f"{'layout':8}{'dtype':10}{'growth MB':>10}{'model MB':>10}{'shard MB':>10}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for layout in ("hf", "sat"):
            shard = write_checkpoint(Path(folder) / layout, layout)
            for dtype in ("float16", "float32"):
                command = [sys.executable, __file__, "--measure", str(Path(folder) / layout), dtype]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                growth, model = json.loads(output.splitlines()[-1])
                numbers = "".join(f"{value / 1e6:10.0f}" for value in (growth, model, shard))
                print(f"{layout:8}{dtype:10}{numbers}{growth / (model + shard):8.2f}")


if __name__ == "__main__":
    main()
