import json
from pathlib import Path

import pytest

from vglm.errors import ConfigError
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics.conventions import CONVENTIONS, clean_report, score_conventions

GOLDEN = json.loads((Path(__file__).parent / "golden" / "metrics" / "text.json").read_text(encoding="utf-8"))


def arm(pairs: list[list[str]]) -> list[Prediction]:
    return [Prediction.of_texts(*pair, str(number)) for number, pair in enumerate(pairs)]


@pytest.mark.parametrize(
    ("convention", "name"),
    [
        (convention, name)
        for convention in ("pycocoevalcap", "llama_factory", "ms_swift")
        for name in GOLDEN[convention]
    ],
)
def test_equals_the_project_s_own_code(convention: str, name: str) -> None:
    scores = CONVENTIONS[convention].score(arm(GOLDEN["pairs"][name]))
    assert scores == pytest.approx(GOLDEN[convention][name], rel=1e-9, abs=1e-9)


def test_one_text_many_scores() -> None:
    scores = score_conventions(arm(GOLDEN["pairs"]["chinese"]))
    assert list(scores) == list(CONVENTIONS)
    bleu = {
        "llama_factory": scores["llama_factory"]["bleu-4"],
        "pycocoevalcap": scores["pycocoevalcap"]["Bleu_4"],
        "13a": scores["sacrebleu"]["BLEU 13a"],
        "zh": scores["sacrebleu"]["BLEU zh"],
    }
    assert bleu["pycocoevalcap"] < 0.01 < bleu["13a"] + 0.02 < bleu["zh"] < bleu["llama_factory"]


def test_clean_report_as_r2gen_does() -> None:
    report = "The heart is normal.. 2. Lungs (clear), no effusion.\n1. XXXX/stable."
    assert clean_report(report) == "the heart is normal . lungs clear no effusion\nxxxxstable ."


def test_r2gen_cuts_answers_and_references() -> None:
    words = [f"word{index}" for index in range(100)]
    first, second = " ".join(words), " ".join(words[:60] + ["other"] * 40)
    assert CONVENTIONS["r2gen"].score(arm([[first, second]]))["BLEU_4"] == pytest.approx(100)
    assert CONVENTIONS["pycocoevalcap"].score(arm([[first, second]]))["Bleu_4"] < 65


def test_silence_costs_nothing_in_ms_swift() -> None:
    pairs = GOLDEN["pairs"]["chinese"]
    silent = arm([*pairs, ["", "图中有一只猫。"]])
    swift, factory = CONVENTIONS["ms_swift"], CONVENTIONS["llama_factory"]
    assert swift.score(silent) == swift.score(arm(pairs))
    assert factory.score(silent)["bleu-4"] == pytest.approx(0.8 * factory.score(arm(pairs))["bleu-4"])


@pytest.mark.parametrize("text", [".", "...", " . "])
def test_stops_alone_have_no_rouge(text: str) -> None:
    scores = CONVENTIONS["ms_swift"].score(arm([[text, "A cat."]]))
    assert scores["rouge-1"] == scores["rouge-l"] == 0.0
    assert CONVENTIONS["ms_swift"].score(arm([["A cat.", text]]))["rouge-2"] == 0.0


def test_conventions_are_documented_and_known() -> None:
    assert all(convention.how and convention.source for convention in CONVENTIONS.values())
    with pytest.raises(ConfigError, match=r"one of llama_factory, .* or all, got 'bleu'"):
        score_conventions([], ["bleu"])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jieba", None)
    with pytest.raises(ConfigError, match="needs the package jieba"):
        score_conventions(arm([["a", "b"]]), ["llama_factory"])
