import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

import vglm.model  # noqa: F401 (registers the tokenizer with AutoTokenizer)
from vglm.errors import CheckpointError
from vglm.model.tokenization import VisualGlmTokenizer

REFERENCE = Path(__file__).parent / "reference" / "visualglm-mini-a"
GOLDEN = json.loads((REFERENCE / "tokenizer_golden.json").read_text(encoding="utf-8"))
TOKENIZER = VisualGlmTokenizer.from_pretrained(REFERENCE / "hf_layout")
SPECIAL_NAMES = [
    *("<unk>", "<s>", "</s>", "<pad>", "[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>"),
    *("<dBLOCK>", "<0x41>", "<img>", "</img>", "＜eop＞", "<eop>\n"),
]
CONTROL_IDS = {0, 1, 2, 3, *range(1000, 1008)}


@pytest.mark.parametrize("case", GOLDEN["strings"], ids=lambda case: repr(case["text"])[:40])
def test_strings_encode_and_decode_as_in_the_original(case: dict[str, Any]) -> None:
    ids = case["ids"]
    assert TOKENIZER.encode(case["text"], add_special_tokens=False) == ids
    assert TOKENIZER(case["text"]).input_ids == case["ids_with_special"]
    assert TOKENIZER.decode(ids) == case["decoded"]
    assert TOKENIZER.decode(case["ids_with_special"]) == case["decoded_with_special"]
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == case["decoded_skip_special"]
    assert TOKENIZER.decode(ids, clean_up_tokenization_spaces=False) == case["decoded_no_cleanup"]


@pytest.mark.parametrize("case", GOLDEN["strings"], ids=lambda case: repr(case["text"])[:40])
def test_plain_encoding_is_the_originals_without_special_tokens(case: dict[str, Any]) -> None:
    ids = TOKENIZER.encode_plain(case["text"])
    assert ids == (case["ids"] if case["sp_ids"] is None else case["sp_ids"])
    assert TOKENIZER.decode(ids, clean_up_tokenization_spaces=False) == case["sp_decoded"]


@pytest.mark.parametrize("case", GOLDEN["id_sequences"], ids=lambda case: str(case["ids"])[:40])
@pytest.mark.parametrize(("key", "skip"), [("decoded", False), ("decoded_skip_special", True)])
def test_id_sequences_decode_as_in_the_original(case: dict[str, Any], key: str, skip: bool) -> None:
    if isinstance(case[key], dict):
        with pytest.raises(IndexError):
            TOKENIZER.decode(case["ids"], skip_special_tokens=skip)
    else:
        assert TOKENIZER.decode(case["ids"], skip_special_tokens=skip) == case[key]


@pytest.mark.parametrize("case", GOLDEN["pairs"], ids=lambda case: repr(case["a"]))
def test_a_pair_is_a_prompt_and_its_answer(case: dict[str, Any]) -> None:
    encoded = TOKENIZER(case["a"], case["b"], return_special_tokens_mask=True)
    assert encoded.input_ids == case["ids"] == TOKENIZER.encode(case["a"], case["b"])
    assert encoded.special_tokens_mask == [int(token in {1001, 1004, 1005}) for token in case["ids"]]


@pytest.mark.parametrize("case", GOLDEN["padded_batches"], ids=lambda case: str(case["kwargs"]))
def test_batches_are_padded_on_the_left(case: dict[str, Any]) -> None:
    encoded = TOKENIZER(case["texts"], **case["kwargs"])
    rows = case["output"]["input_ids"]
    assert encoded.input_ids == (rows if isinstance(rows[0], list) else [rows])
    if "attention_mask" in case["output"]:
        assert encoded.attention_mask == case["output"]["attention_mask"]


@pytest.mark.parametrize("case", GOLDEN["truncation"], ids=lambda case: str(case["max_length"]))
def test_truncation_keeps_the_special_tokens(case: dict[str, Any]) -> None:
    assert TOKENIZER.encode(case["text"], truncation=True, max_length=case["max_length"]) == case["ids"]


def test_ids_and_sizes_come_from_the_model_file() -> None:
    meta = GOLDEN["meta"]
    assert {name: getattr(TOKENIZER, name) for name in meta["ids"] if name != "end_token_id"} == {
        name: value for name, value in meta["ids"].items() if name != "end_token_id"
    }
    assert TOKENIZER.all_special_tokens == meta["all_special_tokens"]
    assert len(TOKENIZER) == TOKENIZER.vocab_size == meta["sentencepiece_pieces"]


@pytest.mark.parametrize("auto", [True, False])
def test_a_saved_tokenizer_is_the_same_again(auto: bool, tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    reloaded = (AutoTokenizer if auto else VisualGlmTokenizer).from_pretrained(tmp_path)
    assert isinstance(reloaded, VisualGlmTokenizer)
    assert "auto_map" not in (tmp_path / "tokenizer_config.json").read_text(encoding="utf-8")
    for case in GOLDEN["strings"]:
        assert reloaded(case["text"]).input_ids == case["ids_with_special"]
        assert reloaded.decode(case["ids"]) == case["decoded"]


@given(st.lists(st.sampled_from(SPECIAL_NAMES) | st.text(), max_size=6).map("".join))
def test_no_text_gives_a_special_id_in_plain_encoding(text: str) -> None:
    assert CONTROL_IDS.isdisjoint(TOKENIZER.encode_plain(text))


@given(st.lists(st.sampled_from(SPECIAL_NAMES) | st.text("abc 中文，\n\t", max_size=5), max_size=6).map("".join))
def test_plain_encoding_decodes_to_what_sentencepiece_makes_of_the_text(text: str) -> None:
    decoded = TOKENIZER.decode(TOKENIZER.encode_plain(text), clean_up_tokenization_spaces=False)
    assert decoded.strip(" ") == text.translate(str.maketrans("＜＞，", "<>,")).strip(" ")


def test_lone_surrogates_become_question_marks() -> None:
    assert TOKENIZER.encode_plain("a\ud83d") == TOKENIZER.encode_plain("a?")


def test_a_folder_without_or_with_a_damaged_model_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"{tmp_path.name}: no tokenizer model ice_text.model there"):
        VisualGlmTokenizer.from_pretrained(tmp_path)
    (tmp_path / "ice_text.model").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match=r"ice_text.model cannot be read as a SentencePiece model"):
        VisualGlmTokenizer.from_pretrained(tmp_path)


def test_another_models_pieces_or_settings_are_refused(reference: Path) -> None:
    model_file = str(reference / "hf_layout" / "ice_text.model")
    with pytest.raises(CheckpointError, match=r"has no piece <begin>"):
        VisualGlmTokenizer(model_file, bos_token="<begin>")
    with pytest.raises(CheckpointError, match=r"sets num_image_tokens"):
        VisualGlmTokenizer(model_file, num_image_tokens=20000)
