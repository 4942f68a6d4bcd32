"""Learning to see before learning to talk."""

from pathlib import Path

import torch
from test_initialization import SIZES

from vglm.worlds.initialization import initialize_model
from vglm.worlds.vision_pretraining import SceneAttributes, initialize_seeing_model, pretrain_vision


def test_scenes_come_with_what_is_in_them(reference: Path) -> None:
    _, processor = initialize_model(reference / "hf_layout", **SIZES)
    scenes = SceneAttributes(30, seed=1, processor=processor)
    pixels, attributes = scenes[4]
    assert pixels.shape == (3, 20, 20)
    assert torch.equal(pixels, SceneAttributes(30, seed=1, processor=processor)[4][0])
    assert all(0 <= value < size for value, size in zip(attributes.tolist(), (12, 8, 4, 10), strict=True))
    assert len({tuple(scenes[i][1].tolist()) for i in range(30)}) > 25


def test_only_what_sees_is_trained_and_it_learns(reference: Path) -> None:
    model, processor = initialize_model(reference / "hf_layout", **SIZES)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    pretrain_vision(model.model, processor, steps=3, batch_size=4, learning_rate=1e-3, seed=1)
    changed = {name.split(".")[1] for name, tensor in model.named_parameters() if not torch.equal(before[name], tensor)}
    assert changed == {"vision_model", "query_tokens", "qformer"}


def test_the_same_seed_gives_the_same_model(reference: Path) -> None:
    settings = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3}
    first, second = (
        initialize_seeing_model(reference / "hf_layout", vision_pretraining=settings, seed=3, **SIZES)[0]
        for _ in range(2)
    )
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
