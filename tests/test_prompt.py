import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vglm.model.tokenization import VisualGlmTokenizer
from vglm.text.prompt import Prompt, clean_response

REFERENCE = Path(__file__).parent / "reference" / "visualglm-mini-a"
CASES = json.loads((REFERENCE / "expected.json").read_text(encoding="utf-8"))["cases"]
RESPONSES = json.loads((REFERENCE / "tokenizer_golden.json").read_text(encoding="utf-8"))["process_response"]
TOKENIZER = VisualGlmTokenizer.from_pretrained(REFERENCE / "hf_layout")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_prompts_read_as_in_the_original(case: dict[str, Any]) -> None:
    history = tuple((question, answer) for question, answer in case["history"])
    prompt = Prompt(case["query"], history, case["image"] is not None, "en" if case["english"] else "zh")
    parts = (prompt.before_image, prompt.after_image)
    decoded = [TOKENIZER.decode(TOKENIZER.encode_plain(part), clean_up_tokenization_spaces=False) for part in parts]
    assert " ".join(filter(None, decoded)) == case["prompt_decoded"]


def test_the_parts_of_a_prompt() -> None:
    assert Prompt("Q2", (("Q1", "A1"),), has_image=True, language="en").after_image == "</img>Q:Q1\nA:A1\nQ:Q2\nA:"
    assert Prompt("二", (("一", "甲"),)).after_image == "问：一\n答：甲\n问：二\n答："
    assert (Prompt("一").before_image, Prompt("一", has_image=True).before_image) == ("", "<img>")


@pytest.mark.parametrize("case", RESPONSES, ids=lambda case: repr(case["in"]))
def test_responses_are_tidied_as_in_the_original(case: dict[str, str]) -> None:
    assert clean_response(case["in"]) == case["hf"] == case["sat"]


@given(st.text())
def test_tidying_changes_only_punctuation_and_outer_white_space(text: str) -> None:
    full_to_half = str.maketrans("，！：；？", ",!:;?")
    assert clean_response(text).translate(full_to_half) == text.strip().translate(full_to_half)
