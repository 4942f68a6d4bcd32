from collections import Counter
from pathlib import Path

import pytest
from sentencepiece import sentencepiece_model_pb2

from vglm.model.tokenization import VisualGlmTokenizer
from vglm.text.prompt import Prompt
from vglm.worlds.tokenizer_training import build_sentencepiece_model

LINES = ["What is it?", "The dog is red.", "The cat is on the old table.", "这是什么？", "红色的狗。"]
CHARACTERS = "天地玄黄，。abcdefghijklmnopqrstuvwxyz0123456789"


def read(path: Path) -> sentencepiece_model_pb2.ModelProto:
    return sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "ice_text.model"
    count = build_sentencepiece_model(LINES, CHARACTERS, 450, path)
    assert count == len(read(path).pieces) <= 450
    return path


def test_the_pieces_are_in_the_originals_order(model_file: Path, reference: Path) -> None:
    original, ours = read(reference / "hf_layout" / "ice_text.model"), read(model_file)

    def fixed(model: sentencepiece_model_pb2.ModelProto) -> list[tuple[str, int, float]]:
        kind = model.SentencePiece.NORMAL
        return [(piece.piece, piece.type, piece.score) for piece in model.pieces if piece.type != kind]

    assert fixed(ours) == fixed(original)
    assert [piece.piece for piece in ours.pieces[:5]] == ["<unk>", "<s>", "</s>", "<pad>", "<n>"]
    for field in ("precompiled_charsmap", "add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces"):
        assert getattr(ours.normalizer_spec, field) == getattr(original.normalizer_spec, field)
    assert max(Counter(piece.piece for piece in ours.pieces).values()) == 1
    scores = [piece.score for piece in ours.pieces if piece.type == ours.SentencePiece.NORMAL]
    assert scores == sorted(scores, reverse=True)
    for field in ("model_type", "byte_fallback", "split_digits", "unk_id", "bos_id", "eos_id", "pad_id", "pad_piece"):
        assert getattr(ours.trainer_spec, field) == getattr(original.trainer_spec, field)


def test_characters_are_pieces_and_common_words_too(model_file: Path) -> None:
    tokenizer = VisualGlmTokenizer(str(model_file))
    for character in {*CHARACTERS, *"".join(LINES)} - set("\n ："):
        pieces = tokenizer.tokenize(character)
        assert len(pieces) == 1 or (len(pieces) == 2 and pieces[0] == "▁"), character
    assert tokenizer.tokenize("The cat is red.") == ["▁The", "▁cat", "▁is", "▁red", "."]
    prompt = Prompt("What is it?", has_image=True, language="en").after_image
    expected = ["▁", "<", "/", "img", ">", "Q", ":", "What", "▁is", "▁it", "?", "<n>", "A", ":"]
    assert tokenizer.tokenize(prompt) == expected
    assert tokenizer.tokenize("天是红色的") == ["▁", "天", "是", "红", "色", "的"]
    assert tokenizer.decode(tokenizer.encode_plain("A zebra!\n\t  地 😀 漢 42")) == "A zebra!\n\t  地 😀 漢 42"


def test_the_prompt_markers_have_ids(model_file: Path) -> None:
    tokenizer = VisualGlmTokenizer(str(model_file))
    ids = tokenizer("天", "地").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["▁", "天", "[gMASK]", "<sop>", "▁", "地", "<eop>"]


def test_the_same_input_gives_the_same_file(model_file: Path, tmp_path: Path) -> None:
    build_sentencepiece_model(iter(LINES), reversed(CHARACTERS), 450, tmp_path / "again.model")
    assert (tmp_path / "again.model").read_bytes() == model_file.read_bytes()


def test_the_least_frequent_words_yield_when_room_is_short(model_file: Path, tmp_path: Path) -> None:
    words = sum(len(piece.piece) > 1 and piece.type == 1 for piece in read(model_file).pieces)
    count = build_sentencepiece_model(LINES, CHARACTERS, len(read(model_file).pieces) - words + 1, tmp_path / "small")
    words_left = [piece.piece for piece in read(tmp_path / "small").pieces if len(piece.piece) > 1 and piece.type == 1]
    assert count == len(read(tmp_path / "small").pieces)
    assert words_left == ["▁is"]


def test_too_small_a_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vocab_size 360 is too small: \d+ characters need \d+ pieces"):
        build_sentencepiece_model(LINES, CHARACTERS, 360, tmp_path / "ice_text.model")
    assert not list(tmp_path.iterdir())
