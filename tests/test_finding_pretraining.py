"""Learning the findings before learning to report."""

import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from test_initialization import SIZES

from vglm.caching import VARIABLE
from vglm.worlds.finding_pretraining import CACHE_KIND, SENTENCES, load_with_findings, pretrain_findings
from vglm.worlds.initialization import initialize_model

SETTINGS = {"studies": 10, "steps": 3, "batch_size": 4, "learning_rate": 1e-3}


def test_only_the_q_former_is_trained(reference: Path) -> None:
    model, processor = initialize_model(reference / "hf_layout", **SIZES)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    right = pretrain_findings(model.model, processor, seed=1, **SETTINGS)
    changed = {name.split(".")[1] for name, tensor in model.named_parameters() if not torch.equal(before[name], tensor)}
    assert changed == {"query_tokens", "qformer"}
    assert all(
        tensor.grad is None
        for name, tensor in model.named_parameters()
        if "qformer" not in name.split(".")[1:2] and "query_tokens" not in name
    )
    assert tuple(right) == SENTENCES
    assert all(0 <= share <= 1 for share in right.values())


def test_findings_are_learned_once(random_model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    folder = shutil.copytree(random_model_folder, tmp_path / "model")
    long_ago = time.time() - 60
    for file in folder.iterdir():
        os.utime(file, (long_ago, long_ago))
    torch.manual_seed(5)
    first = load_with_findings(folder, finding_pretraining=SETTINGS, dtype="bfloat16", seed=3)[0].state_dict()
    number = torch.rand(1)
    (weights,) = (tmp_path / CACHE_KIND).iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("vglm.worlds.finding_pretraining.pretrain_findings", _refuse)
        torch.manual_seed(5)
        again = load_with_findings(folder, finding_pretraining=SETTINGS, dtype="bfloat16", seed=3)[0].state_dict()
        assert torch.equal(number, torch.rand(1))  # what is drawn later does not depend on the cache
        assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
        for steps, seed in ((4, 3), (3, 4)):
            with pytest.raises(AssertionError, match="learned anew"):
                load_with_findings(folder, finding_pretraining={**SETTINGS, "steps": steps}, seed=seed)
    weights.write_bytes(weights.read_bytes()[:-100])  # damaged: learned anew
    third = load_with_findings(folder, finding_pretraining=SETTINGS, dtype="bfloat16", seed=3)[0].state_dict()
    assert all(torch.equal(tensor, third[name]) for name, tensor in first.items())


def _refuse(*_: object, **__: object) -> None:
    raise AssertionError("learned anew")


def test_equal_arguments_give_the_same_model(random_model_folder: Path) -> None:
    first, second, other = (
        load_with_findings(random_model_folder, finding_pretraining=SETTINGS, seed=seed)[0].state_dict()
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())
