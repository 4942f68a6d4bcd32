import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from packaging.version import Version
from PIL import Image
from transformers import AutoProcessor

import vglm.model  # noqa: F401 (registers the processor with AutoProcessor)
from vglm.model.image_processing import VisualGlmImageProcessor
from vglm.model.modeling import IGNORE_INDEX
from vglm.model.processing import VisualGlmProcessor
from vglm.model.tokenization import VisualGlmTokenizer
from vglm.text.prompt import LANGUAGES

REFERENCE = Path(__file__).parent / "reference" / "visualglm-mini-a"
EXPECTED: dict[str, Any] = json.loads((REFERENCE / "expected.json").read_text(encoding="utf-8"))
ARRAYS = np.load(REFERENCE / "expected.npz")
CASES: dict[str, dict[str, Any]] = EXPECTED["cases"]
DATASET = json.loads((REFERENCE / "images" / "dataset.json").read_text(encoding="utf-8"))
PROCESSOR = VisualGlmProcessor(
    VisualGlmImageProcessor(size={"height": 28, "width": 28}),
    VisualGlmTokenizer.from_pretrained(REFERENCE / "hf_layout"),
    num_image_tokens=32,
)
UNK, PAD, SOP, EOP = 0, 3, 1004, 1005
ENLARGED = 3
IMAGES = [Image.open(path).copy() for path in sorted((REFERENCE / "images").glob("*.png"))]

words = st.text(max_size=8) | st.sampled_from(["<eop>", "<sop>[gMASK]", "<img><unk>", "<pad>", "你好，", "[MASK]"])
samples = st.fixed_dictionaries(
    {
        "images": st.sampled_from([None, *IMAGES[:2]]),
        "text": words,
        "history": st.none() | st.lists(st.tuples(words, words), max_size=2),
        "language": st.sampled_from(LANGUAGES),
        "answer": words,
    }
)


def arguments(name: str) -> dict[str, Any]:
    case = CASES[name]
    image = None if case["image"] is None else IMAGES[case["image"]]
    return {
        "images": image,
        "text": case["query"],
        "history": case["history"],
        "language": "en" if case["english"] else "zh",
    }


def pixels_of(index: int) -> NDArray[Any]:
    """The original's; of the picture that is enlarged, our own where Pillow enlarges otherwise than the original's."""
    if index == ENLARGED and Version(PIL.__version__) < Version("13"):
        return PROCESSOR.image_processor(IMAGES[index], return_tensors="np").pixel_values[0]
    return ARRAYS[f"images/{index}/pixel_values"]


@pytest.mark.parametrize("name", CASES)
def test_prompts_have_the_originals_ids_and_pixels(name: str) -> None:
    inputs = PROCESSOR(**arguments(name), return_tensors="pt")
    assert inputs["input_ids"].dtype == torch.int64
    assert inputs["input_ids"].tolist() == [ARRAYS[f"{name}/input_ids_hf"][: CASES[name]["prompt_tokens"]].tolist()]
    assert inputs["attention_mask"].tolist() == [[1] * CASES[name]["prompt_tokens"]]
    if CASES[name]["image"] is None:
        assert "pixel_values" not in inputs
    else:
        pixel_values = pixels_of(CASES[name]["image"])
        np.testing.assert_allclose(inputs["pixel_values"], pixel_values[None], rtol=0, atol=1e-5)


def test_a_mixed_batch_holds_the_single_samples_left_padded() -> None:
    columns = {key: [arguments(name)[key] for name in CASES] for key in arguments("zh_text")}
    batch = PROCESSOR(**columns, return_tensors="pt")
    width = max(case["prompt_tokens"] for case in CASES.values())
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (len(CASES), width)
    for row, name in enumerate(CASES):
        ids = ARRAYS[f"{name}/input_ids_hf"][: CASES[name]["prompt_tokens"]].tolist()
        assert batch["input_ids"][row].tolist() == [PAD] * (width - len(ids)) + ids
        assert batch["attention_mask"][row].tolist() == [0] * (width - len(ids)) + [1] * len(ids)
    expected = [pixels_of(case["image"]) for case in CASES.values() if case["image"] is not None]
    np.testing.assert_allclose(batch["pixel_values"], np.stack(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("row", [0, 1])  # the original cut rows 2 and 3 to its fixed lengths
def test_training_samples_equal_the_originals(row: int) -> None:
    ids, labels = ARRAYS["train/input_ids"][row], ARRAYS["train/labels"][row]
    length = int(np.flatnonzero(ids == EOP)[0]) + 1
    assert (ids[length:] == PAD).all()
    expected = np.where((ids == PAD) & (np.arange(len(ids)) < length), UNK, ids)[:length]
    inputs = PROCESSOR(images=IMAGES[row], text=DATASET[row]["prompt"], answer=DATASET[row]["label"])
    assert inputs["input_ids"] == [expected.tolist()]
    assert inputs["labels"] == [labels[:length].tolist()]
    np.testing.assert_allclose(inputs["pixel_values"][0], ARRAYS["train/images"][row], rtol=0, atol=1e-5)


@given(samples)
def test_labels_are_the_answer_from_sop_on(sample: dict[str, Any]) -> None:
    with_answer = PROCESSOR(**sample)
    (ids,), (labels,), (mask,) = (with_answer[key] for key in ("input_ids", "labels", "attention_mask"))
    (prompt,) = PROCESSOR(**{**sample, "answer": None})["input_ids"]
    assert ids[: len(prompt)] == prompt
    assert labels == [IGNORE_INDEX] * (len(prompt) - 1) + ids[len(prompt) - 1 :]
    assert mask == [1] * len(ids)


@given(samples)
def test_no_text_adds_control_tokens_or_image_slots(sample: dict[str, Any]) -> None:
    (ids,) = PROCESSOR(**sample)["input_ids"]
    controls = [token for token in ids if token < 4 or 1000 <= token < 1008]
    slots = [UNK] * (32 if sample["images"] is not None else 0)
    assert controls == [*slots, 1001, SOP, EOP]


@given(st.lists(samples, min_size=1, max_size=4))
def test_a_batch_is_its_samples_left_padded(rows: list[dict[str, Any]]) -> None:
    batch = PROCESSOR(**{key: [row[key] for row in rows] for key in rows[0]}, return_tensors="pt")
    singles = [PROCESSOR(**row) for row in rows]
    width = max(len(single["input_ids"][0]) for single in singles)
    for key, filler in (("input_ids", PAD), ("attention_mask", 0), ("labels", IGNORE_INDEX)):
        padded = [[filler] * (width - len(single[key][0])) + single[key][0] for single in singles]
        assert batch[key].tolist() == padded


def test_single_values_hold_for_every_sample() -> None:
    batch = PROCESSOR(images=IMAGES[:2], text="Hi", language="en", history=[("a", "b")], answer="c")
    one = PROCESSOR(images=IMAGES[1], text="Hi", language="en", history=[("a", "b")], answer="c")
    assert batch["input_ids"] == one["input_ids"] * 2
    np.testing.assert_array_equal(batch["pixel_values"][1], one["pixel_values"][0])


def test_padding_is_for_tensors_unless_asked_for() -> None:
    texts = ["你好", "晚上睡不着应该怎么办"]
    ragged, padded = PROCESSOR(text=texts)["input_ids"], PROCESSOR(text=texts, padding=True)["input_ids"]
    assert [len(row) for row in ragged] == [len(PROCESSOR(text=text)["input_ids"][0]) for text in texts]
    assert padded[0] == [PAD] * (len(ragged[1]) - len(ragged[0])) + ragged[0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"text": ["a", "b"], "answer": ["c"]}, "text has 2, answer has 1"),
        ({"text": ["a", "b"], "images": [None] * 3, "language": ["en"]}, "images has 3, text has 2, language has 1"),
        ({"text": ["a"], "history": [[("q", "a")], []]}, "text has 1, history has 2"),
        ({"text": []}, "text is empty"),
        ({}, "text[0] is None"),
        ({"text": ["a", 3], "answer": ["b", None]}, "text[1] is 3; answer[1] is None"),
        ({"text": "a", "language": True}, "language[0] is True"),
        ({"text": "a", "history": [("q", "a", "?")]}, "history[0] is ('q', 'a', '?')"),
        ({"text": ["a", "b"], "images": [None, "cat.png"]}, "images[1] is 'cat.png'"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="processor: ") as caught:
        PROCESSOR(**wrong)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "response_hf" in case])
def test_decode_gives_the_originals_response(name: str) -> None:
    case = CASES[name]
    assert PROCESSOR.decode(case["greedy_hf"]) == case["response_hf"]
    whole = [
        PAD,
        *ARRAYS[f"{name}/input_ids_hf"].tolist(),
        EOP,
        PAD,
        20,
    ]  # prompt, answer and what a batch leaves behind
    assert PROCESSOR.batch_decode([whole, torch.tensor(whole)]) == [case["response_hf"]] * 2


def test_decode_skips_ids_beyond_the_tokenizer() -> None:
    assert PROCESSOR.decode([5, 259, 1344, 1407]) == PROCESSOR.decode([5, 259]) == "你好"


def test_a_saved_processor_is_the_same_again(tmp_path: Path) -> None:
    PROCESSOR.save_pretrained(tmp_path)
    reloaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(reloaded, VisualGlmProcessor)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ice_text.model",
        "processor_config.json",
        "tokenizer_config.json",
    ]
    ours, theirs = (
        processor(**arguments("zh_history"), answer="好", return_tensors="pt") for processor in (PROCESSOR, reloaded)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
