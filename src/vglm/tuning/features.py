"""Encode each picture once with a frozen vision tower, for the feature cache.

    features = cache_features(model, processor, splits.train, device)      and the tower leaves the memory
    collate = Collator(processor, features=features)                       as before where features is None

Training, evaluation and sweeps use it whenever no part of vision transformer and Q-Former trains, has an adapter or
uses dropout. The cache holds the Q-Former's output for a picture, in the model's own type, bit for bit: 32 x 768
numbers, 49 KB in half precision; projected they would be 32 x 4096. The projection is computed in every step, and may
train.
"""

import gc
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from PIL import Image
from torch import Tensor, nn

from vglm.caching import cache_folder
from vglm.data.feature_cache import FeatureCache
from vglm.data.sample import Sample
from vglm.errors import CacheError
from vglm.files import file_sha256
from vglm.model import image_processing, modeling
from vglm.model.configuration import VisualGlmConfig
from vglm.model.identity import hash_parts, is_adapted, is_from_checkpoint
from vglm.model.modeling import ENCODER_PARTS, VisualGlmModel
from vglm.model.processing import VisualGlmProcessor
from vglm.runs import installed_version

_DROPOUTS = ("attention_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob")
_LIBRARIES = ("visualglm-workbench", "torch", "transformers", "pillow", "numpy")
_WITHOUT_EFFECT = {"_name_or_path", "architectures", "dtype", "initializer_range", "transformers_version"}

logger = logging.getLogger(__name__)


def cache_features(
    model: Any,
    processor: VisualGlmProcessor,
    samples: Sequence[Sample],
    device: torch.device | None = None,
    others: Iterable[Sample] = (),
    folder: Path | None = None,
) -> FeatureCache | None:
    """Encode the pictures of a training set that were not encoded before, and let go of the encoder.

    Vision transformer and Q-Former stay where the model could not do without them: they are saved with a model that was
    tuned as a whole, and identify a model that came from no checkpoint. Prints what it did.

    Args:
        model: As returned by `attach`.
        processor: The model's processor.
        samples: What will be trained on; a set that makes its samples on demand (`dialogues()`) is not cached.
        device: Where to encode; by default where the model is.
        others: Samples that are scored during training, whose pictures are encoded too.
        folder: Where features are kept; `cache_folder("features")` if not given.

    Returns:
        For the collator; None where pictures must be encoded in every step: something in vision transformer or
        Q-Former trains, carries an adapter or drops out, or the cache cannot be written.

    Raises:
        DataError: A picture cannot be opened.
    """
    core = _core(model)
    is_trained = core.has_vision and any(parameter.requires_grad for parameter in _encoder_parameters(core).values())
    if is_trained or hasattr(samples, "dialogues"):
        return None
    features = open_features(model, processor, device, folder)
    if features is None:
        return None
    try:
        filled = features.fill(samples, others)
    except CacheError as error:
        logger.warning("features of pictures are not cached: %s", error)
        return None
    features.encode = None
    tower = "stays, to be saved with the model"
    if isinstance(model, PeftModel) and is_from_checkpoint(model.get_base_model()):
        core.drop_vision()
        gc.collect()
        tower = "left the memory"
    print(f"{filled}; the vision tower {tower}")
    return features


def open_features(
    model: Any, processor: Any, device: torch.device | None = None, folder: Path | None = None
) -> FeatureCache | None:
    """The cache that a model's vision parts fill as pictures are met.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
        processor: Its processor.
        device: Where to encode; by default where the model is.
        folder: Where features are kept; `cache_folder("features")` if not given.

    Returns:
        The cache; None where the model's own features are not those of its plain encoder, or where the cache cannot be
        written.
    """
    core = _core(model)
    if not core.has_vision or any(map(is_adapted, _encoder_parameters(core))) or _drops_out(core):
        return None
    if any(
        parameter.is_meta for parameter in _encoder_parameters(core).values()
    ):  # spread over devices, offloaded in part
        return None
    own = core.query_tokens.device
    device = own if device is None or own.type != "cpu" else device

    def prepare(picture: Image.Image) -> Tensor:
        pixels: Tensor = processor.image_processor([picture], return_tensors="pt")["pixel_values"]
        return pixels

    def encode(pictures: Sequence[Tensor]) -> Tensor:
        for parameter in _encoder_parameters(core).values():  # where they are already, this does nothing
            parameter.data = parameter.data.to(device)
        with torch.no_grad():
            return core.get_image_features(torch.cat(list(pictures)).to(device))

    folder = folder or cache_folder("features")
    described = describe_encoder(model, processor, device)
    try:
        return FeatureCache(folder, described, features_shape(core.config), encode, prepare=prepare)
    except CacheError as error:
        logger.warning("features of pictures are not cached: %s", error)
        return None


def fill_features(features: FeatureCache | None, samples: Iterable[Sample]) -> bool:
    """Encode the pictures that an open cache does not know yet.

    Args:
        features: From `open_features`.
        samples: With pictures that can be opened.

    Returns:
        Whether the cache has them all now; False, and a warning, where it cannot be written any further.
    """
    try:
        if features is not None:
            features.fill(samples)
    except CacheError as error:
        logger.warning("features of pictures are not cached any further: %s", error)
        return False
    return features is not None


def features_shape(config: VisualGlmConfig) -> tuple[int, int]:
    """The shape of one picture's features: image tokens, and the width of the Q-Former."""
    return config.num_image_tokens, config.qformer_config.hidden_size


def describe_encoder(model: Any, processor: Any, device: torch.device) -> dict[str, Any]:
    """All that decides what vision transformer and Q-Former make of a picture's pixels.

    Args:
        model: With both.
        processor: Its processor.
        device: Where they run.

    Returns:
        For `FeatureCache`: a change of any of it gives other features, at least in their last bits.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    core = _core(model)
    parameters = _encoder_parameters(core)
    return {
        "name": Path(core.config._name_or_path or "").name,
        "weights_xxh3": hash_parts(base, tuple(f"model.{part}" for part in ENCODER_PARTS)),
        "dtypes": sorted({str(parameter.dtype).removeprefix("torch.") for parameter in parameters.values()}),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "vision": _settings(core.vision_model.config),
        "qformer": _settings(core.qformer.config),
        "processor": processor.image_processor.to_dict(),
        "versions": {name: installed_version(name) for name in _LIBRARIES},
        "code_sha256": {
            Path(file).name: file_sha256(Path(file)) for file in (modeling.__file__, image_processing.__file__)
        },
    }


def _core(model: Any) -> VisualGlmModel:
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    core: Any = base.model
    assert isinstance(core, VisualGlmModel)
    return core


def _encoder_parameters(core: VisualGlmModel) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in core.named_parameters() if name.startswith(ENCODER_PARTS)}


def _drops_out(core: VisualGlmModel) -> bool:
    configs = (core.config.vision_config, core.config.qformer_config)
    return any(getattr(config, name, 0) for config in configs for name in _DROPOUTS)


def _settings(config: Any) -> dict[str, Any]:
    settings = {key: value for key, value in config.to_dict().items() if key not in _WITHOUT_EFFECT}
    return settings | {"attention": config._attn_implementation}
