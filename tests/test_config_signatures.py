"""Signatures read from source are those that importing gives."""

import re
from pathlib import Path

import peft
import pytest

from vglm.config.check import _describe
from vglm.config.settings import FUNCTIONS
from vglm.config.signatures import NoSuchName, imported_signature, missing_name, read_signature
from vglm.config.targets import known_targets

PEFT_CONFIGS = sorted(f"peft.{name}" for name in dir(peft) if name.endswith("Config"))


def _described(annotation: object) -> str:
    return "" if annotation is None else " | ".join(sorted(_describe(annotation).split(" | ")))


@pytest.mark.parametrize("target", [*sorted(known_targets()), *PEFT_CONFIGS, *FUNCTIONS.values()])
def test_what_is_read_is_what_importing_gives(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = imported_signature(target)
    monkeypatch.setattr("vglm.config.signatures.imported_signature", lambda target: pytest.fail("it was imported"))
    read = read_signature(target)
    assert (read.takes_any, read.is_dataclass) == (imported.takes_any, imported.is_dataclass)
    assert list(read.parameters) == list(imported.parameters)
    for name, expected in imported.parameters.items():
        parameter = read.parameters[name]
        assert (parameter.is_required, parameter.is_optional) == (expected.is_required, expected.is_optional), name
        if expected.annotation is not None:  # else it names what only a type checker imports
            assert _described(parameter.annotation) == _described(expected.annotation), name


def test_what_the_source_does_not_tell_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_signature("transformers.AutoConfig.from_pretrained")
    assert "pretrained_model_name_or_path" in read.parameters


def test_a_missing_name_is_told_without_importing() -> None:
    missing = missing_name("vglm.model.loading.load_pretraind")
    assert isinstance(missing, NoSuchName)
    assert "load_pretrained" in missing.names
    with pytest.raises(NoSuchName, match=re.escape("peft has no LoraConfg")):
        read_signature("peft.LoraConfg")
    assert missing_name("peft.LoraConfig") is None
