"""Build an engine from command-line arguments: a checkpoint, its precision, adapters by name.

engine = load_engine("visualglm-6b", quant=4, adapters=["xray=outputs/xray/qlora/<time>", "latest"])
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vglm.config import repo_root
from vglm.errors import AdapterError, ConfigError
from vglm.model.loading import load_pretrained
from vglm.runs import Run
from vglm.serving.adapters import BASE
from vglm.serving.engine import Engine

_QUANTIZATIONS = {None: None, 8: "int8", 4: "nf4"}
_NAME = re.compile(r"[\w.-]{1,64}")


def default_checkpoint() -> Path:
    """The tiny model that comes with the workbench."""
    return repo_root() / "data/visualglm_tiny"


def load_engine(
    checkpoint: str | Path | None = None,
    *,
    adapters: Sequence[str] = (),
    quant: int | None = None,
    dtype: str | None = None,
    device_map: Any = None,
    tokenizer: str | Path | None = None,
    **settings: Any,
) -> Engine:
    """Load a model and its adapters, ready to be asked.

    Args:
        checkpoint: As in `load_pretrained`; None: the tiny model.
        adapters: Each a run folder, a peft folder or `latest`, with `<name>=` before it or named by its folder.
        quant: 8 or 4 bits (nf4) for the language model; None as stored.
        dtype: As in `load_pretrained`.
        device_map: Likewise.
        tokenizer: Likewise.
        settings: Of `Engine`.

    Raises:
        AdapterError: An adapter cannot be read, or does not fit the model.
        CheckpointError: The model cannot be read.
        ConfigError: A value is not possible.
    """
    if quant not in _QUANTIZATIONS:
        raise ConfigError(f"quant must be 8 or 4, got {quant!r}.")
    named = dict(map(name_adapter, adapters))
    if len(named) < len(adapters):
        raise ConfigError("two adapters have the same name. Write <name>=<folder>.")
    if BASE in named:
        raise ConfigError(f"an adapter cannot be called {BASE!r}, which is the model without any.")
    model, processor = load_pretrained(
        checkpoint or default_checkpoint(),
        dtype=dtype,
        device_map=device_map,
        quantization=_QUANTIZATIONS[quant],  # type: ignore[arg-type]
        tokenizer=tokenizer,
    )
    return Engine(model, processor, adapters=named, **settings)


def load_divided_engine(
    checkpoint: str | Path | None, *, dtype: str | None, refused: Mapping[str, Any], **settings: Any
) -> Engine | None:
    """Load a model that is divided among the processes of torchrun, see `vglm.serving.parallel`.

    Args:
        checkpoint: A folder in the native layout; None: the tiny model.
        dtype: As in `load_pretrained`.
        refused: Options that do not go with it, by name; none of them may have a value.
        settings: Of `Engine`.

    Returns:
        In the first process the engine. The others follow it, and return None when it is closed.

    Raises:
        CheckpointError: The model cannot be read.
        ConfigError: It cannot be divided, or a refused option was given.
    """
    from vglm.serving import parallel

    if refused_options := [name for name, value in refused.items() if value]:
        raise ConfigError(
            f"{refused_options[0]} does not go with --tensor-parallel, which divides plain weights in the native"
            " layout. Leave it out; an adapter can be merged first: vglm merge RUN --output DIR."
        )
    model, processor = parallel.load_part(Path(checkpoint or default_checkpoint()), dtype)
    if os.environ.get("RANK") == "0":
        return Engine(model, processor, decoder=parallel.Leader, **settings)
    parallel.follow(model)
    return None


def name_adapter(text: str) -> tuple[str, Path]:
    """The name and the folder of an adapter.

    Args:
        text: `<folder>` or `<name>=<folder>`; the folder is a run's, a peft adapter's, or `latest`.

    Raises:
        AdapterError: There is no adapter.
    """
    name, equals, location = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        name, location = "", text
    folder = Run.latest(Path("outputs")).folder if location == "latest" else Path(location)
    run = folder if (folder / "adapter").is_dir() else None
    adapter = folder if run is None else folder / "adapter"
    if not (adapter / "adapter_config.json").is_file():
        raise AdapterError(
            f"{text!r} names no adapter: {adapter} has no adapter_config.json. Pass a run folder or a peft folder."
        )
    if not name:
        parts = (run or adapter).resolve().parts
        name = re.sub(r"[^\w.-]", "-", "-".join(parts[-3:] if run else parts[-1:]))[-64:]
    return name, adapter
