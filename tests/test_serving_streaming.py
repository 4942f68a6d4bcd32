"""An answer's pieces put together are the answer, whatever its tokens are."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vglm.config import repo_root
from vglm.model.processing import AnswerDecoder, VisualGlmProcessor
from vglm.serving.streaming import GrowingText

PROCESSOR = VisualGlmProcessor.from_pretrained(repo_root() / "data/visualglm_tiny")
TOKENIZER = PROCESSOR.tokenizer
DECODER = AnswerDecoder(PROCESSOR)

TOKENS = st.integers(min_value=0, max_value=len(TOKENIZER) - 1).filter(lambda token: token != TOKENIZER.eos_token_id)
TEXTS = st.text(alphabet="ab 't.,!?:;n've[]训练时间海\n滩é😀 s", max_size=120)


@given(st.lists(st.integers(-2, len(TOKENIZER) + 2) | st.sampled_from(TOKENIZER.all_special_ids), max_size=60))
def test_any_ids_are_decoded_as_the_processor_decodes_them_behind_a_prompt(ids: list[int]) -> None:
    assert DECODER.decode(ids) == PROCESSOR.decode([TOKENIZER.bos_token_id, *ids])


def test_every_id_is_decoded_as_the_processor_decodes_it() -> None:
    """Bytes, white space and control pieces among them, between two others."""
    sides = TOKENIZER.encode_plain("海 a")
    for token in range(len(TOKENIZER)):
        ids = [*sides, token, token, *sides]
        assert DECODER.decode(ids) == PROCESSOR.decode([TOKENIZER.bos_token_id, *ids])


def _pieces(tokens: list[int], stop: tuple[str, ...] = (), every: int = 1) -> list[str]:
    """What an answer grows by, shown at every so many tokens."""
    text = GrowingText(DECODER, stop)
    pieces = []
    for count, token in enumerate(tokens, 1):
        text.take(token)
        if count % every == 0:
            pieces.append(text.grow())
        if text.is_stopped:
            return pieces
    return [*pieces, text.close()]


@given(st.lists(TOKENS, max_size=90), st.integers(1, 40))
def test_pieces_of_any_tokens_are_the_decoded_answer(tokens: list[int], every: int) -> None:
    assert "".join(_pieces(tokens, every=every)) == PROCESSOR.decode([TOKENIZER.bos_token_id, *tokens])


@given(TEXTS)
def test_pieces_of_any_text_are_the_decoded_answer(text: str) -> None:
    tokens = TOKENIZER.encode_plain(text)
    assert "".join(_pieces(tokens)) == PROCESSOR.decode(tokens)


@given(TEXTS, st.text(alphabet="ab .海\n", min_size=1, max_size=3))
def test_nothing_of_a_stop_text_is_shown(text: str, stop: str) -> None:
    tokens = TOKENIZER.encode_plain(text)
    whole, shown = PROCESSOR.decode(tokens), "".join(_pieces(tokens, (stop,)))
    assert stop not in shown
    if stop not in whole:
        assert shown == whole


@pytest.mark.parametrize("every", [1, 2, 3, 50])
@pytest.mark.parametrize(("text", "stop"), [("It is a café here", "a café"), ("海滩😀上", "滩😀"), ("海,滩", "海，")])
def test_the_beginning_of_a_stop_text_waits_while_its_end_is_held_back(text: str, stop: str, every: int) -> None:
    tokens = TOKENIZER.encode_plain(text)
    whole = PROCESSOR.decode(tokens)
    assert stop in whole
    assert "".join(_pieces(tokens, (stop,), every)) == whole[: whole.find(stop)]


def test_text_comes_as_soon_as_it_is_settled() -> None:
    tokens = TOKENIZER.encode_plain("沙滩上有四只猫")
    pieces = _pieces(tokens)
    assert pieces[-1] == ""
    assert sum(map(bool, pieces)) > 1


def test_half_width_punctuation_waits_for_its_neighbour() -> None:
    pieces = _pieces(TOKENIZER.encode_plain("a,海"))
    assert "," not in "".join(pieces[:-1])
    assert "".join(pieces) == "a，海"


def test_of_a_long_answer_only_the_end_is_decoded() -> None:
    class Counting(AnswerDecoder):
        longest = 0

        def decode(self, token_ids: Sequence[int]) -> str:
            self.longest = max(self.longest, len(token_ids))
            return super().decode(token_ids)

    texts = Counting(PROCESSOR)
    text = GrowingText(texts)
    tokens = TOKENIZER.encode_plain("A cat, a dog and 沙滩上有四只猫，it's a picture of the beach! " * 20)
    shown = []
    for token in tokens:
        text.take(token)
        shown.append(text.grow())
    assert texts.longest < 60 < len(tokens)
    assert "".join(shown) + text.close() == PROCESSOR.decode(tokens)


@pytest.mark.parametrize("tokens", [[], [TOKENIZER.pad_token_id]])
def test_nothing_gives_nothing(tokens: list[int]) -> None:
    assert "".join(_pieces(tokens)) == ""
