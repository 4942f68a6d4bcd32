import importlib.util
from pathlib import Path
from typing import Any

import pytest

from vglm.config import repo_root
from vglm.errors import DataError
from vglm.evaluation.predictions import Prediction


def _per_type() -> Any:
    spec = importlib.util.spec_from_file_location("per_type", repo_root() / "recipes" / "astronomy" / "per_type.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _record(star: int, reference: str, prediction: str, kind: str = "type") -> Prediction:
    return Prediction(
        id=f"{star}.{reference}",
        group=str(star),
        split="test",
        kind=kind,
        english=reference.isascii(),
        question="?",
        history=(),
        reference=reference,
        prediction=prediction,
        image=None,
        image_sha256=None,
    )


def test_each_type_is_scored_over_both_languages() -> None:
    """By hand: RR Lyrae 2 of 3 questions right and 1 false alarm, hybrid 1 of 2, Cepheid never."""
    records = [
        _record(1, "天琴座RR型变星。", "天琴座RR型变星。"),
        _record(1, "RR Lyrae star.", "RR Lyrae star."),
        _record(2, "RR Lyrae star.", "Hybrid pulsator."),
        _record(3, "Hybrid pulsator.", "Hybrid pulsator"),
        _record(4, "混合型脉动变星。", "天琴座RR型变星。"),
        _record(5, "Type II Cepheid.", "E."),  # a catalogue's code is no answer
        _record(5, "约5天。", "约5天。", kind="period"),
    ]
    scores = _per_type().score_types(records)
    assert list(scores) == ["rr_lyrae", "hybrid", "type_ii_cepheid"]
    assert [score.stars for score in scores.values()] == [2, 2, 1]
    assert scores["rr_lyrae"].precision == pytest.approx(2 / 3)
    assert scores["rr_lyrae"].recall == pytest.approx(2 / 3)
    assert scores["hybrid"].f1 == pytest.approx(0.5)
    assert scores["type_ii_cepheid"].f1 == 0.0


def test_an_evaluation_without_types_or_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = _per_type()
    with pytest.raises(DataError, match="kind 'type', found none"):
        module.score_types([_record(5, "约5天。", "约5天。", kind="period")])
    assert module.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
