from pathlib import Path

import builders
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vglm.data.collator import Collator
from vglm.data.sample import Sample
from vglm.data.sequences import SequenceStatistics, TrainingSequences
from vglm.data.table import Selection, write_table
from vglm.errors import ConfigError, DataError
from vglm.model.image_processing import VisualGlmImageProcessor
from vglm.model.processing import VisualGlmProcessor
from vglm.model.tokenization import VisualGlmTokenizer
from vglm.text.prompt import LANGUAGES, Language
from vglm.worlds.pretraining import SceneDialogues

REFERENCE = Path(__file__).parent / "reference" / "visualglm-mini-a"
PROCESSOR = VisualGlmProcessor(
    VisualGlmImageProcessor(size={"height": 28, "width": 28}),
    VisualGlmTokenizer.from_pretrained(REFERENCE / "hf_layout"),
    num_image_tokens=4,
)
IMAGE = Image.new("RGB", (28, 28), "red")
UNK, GMASK, SOP, EOP = 0, 1001, 1004, 1005

texts = st.text(max_size=12) | st.sampled_from(["图中有什么？", "a long answer " * 5, "ﷺ", "①½㍿", "<eop>", "\n\n  \t"])
dialogues = st.lists(st.tuples(texts, texts), min_size=1, max_size=4)


def sample(
    *turns: tuple[str, str], name: str = "a.json#1", image: Image.Image | None = IMAGE, language: Language = "zh"
) -> Sample:
    return builders.sample(name, *turns, image=image, language=language)


def tokens(item: Sample, **options: object) -> list[int]:
    history = [tuple(turn) for turn in item.history]
    has_image = {} if item.image is None else {"images": [np.zeros((28, 28, 3), np.uint8)]}
    batch = PROCESSOR(**has_image, text=[item.question], history=[history], answer=[item.answer], **options)
    return list(batch["input_ids"][0])


def test_every_answer_is_a_sequence_with_the_turns_before_it_as_history() -> None:
    three = sample(("q1", "a1"), ("q2", "a2"), ("q3", "a3"))
    sequences = TrainingSequences([three, sample(("q", "a"), name="b")], PROCESSOR, max_length=500)
    assert [(sequence.id, sequence.history, sequence.question, sequence.answer) for sequence in sequences] == [
        ("a.json#1", [], "q1", "a1"),
        ("a.json#1", [("q1", "a1")], "q2", "a2"),
        ("a.json#1", [("q1", "a1"), ("q2", "a2")], "q3", "a3"),
        ("b", [], "q", "a"),
    ]
    assert sequences[-1] == sequences[3] == sequences[2:][1]
    assert str(sequences.statistics) == "2 dialogues with 4 answers to learn"

    last = TrainingSequences([three], PROCESSOR, max_length=500, answers="last")
    assert list(last) == [three]
    assert str(last.statistics) == "1 answers to learn"


@given(dialogues, st.sampled_from(LANGUAGES))
def test_an_answer_is_learned_as_the_model_is_asked_for_it(turns: list[tuple[str, str]], language: Language) -> None:
    rows = list(TrainingSequences([sample(*turns, language=language)], PROCESSOR, max_length=10_000))
    batch = Collator(PROCESSOR)(rows)
    for number, row in enumerate(rows):
        ids, labels = (batch[key][number][batch["attention_mask"][number] == 1] for key in ("input_ids", "labels"))
        prompt = PROCESSOR(
            images=np.zeros((28, 28, 3), np.uint8), text=row.question, history=turns[:number], language=language
        )
        assert ids[: len(prompt["input_ids"][0])].tolist() == prompt["input_ids"][0]
        assert PROCESSOR.decode(labels[labels >= 0]) == PROCESSOR.decode(PROCESSOR.tokenizer.encode_plain(row.answer))


@given(dialogues, st.booleans(), st.integers(min_value=1, max_value=150))
def test_what_is_cut_is_the_oldest_turns_then_the_answers_end_and_is_counted(
    turns: list[tuple[str, str]], has_image: bool, max_length: int
) -> None:
    whole = sample(*turns, image=IMAGE if has_image else None)
    questions = [sample((question, ""), image=whole.image) for question, _ in turns]
    if any(len(tokens(question)) > max_length for question in questions):  # prompt and <eop>
        with pytest.raises(DataError, match=r"do not fit into max_length:\n  a\.json#1: a question takes \d+ tokens"):
            TrainingSequences([whole], PROCESSOR, max_length=max_length)
        return
    sequences = TrainingSequences([whole], PROCESSOR, max_length=max_length)
    expected = SequenceStatistics(1, len(turns))
    for number, row in enumerate(sequences):
        ids = tokens(row, max_length=max_length)
        start = next(
            (
                start
                for start in range(number + 1)
                if len(tokens(sample(*turns[start : number + 1], image=whole.image))) <= max_length
            ),
            number,
        )
        uncut = tokens(sample(*turns[start : number + 1], image=whole.image))
        assert ids == uncut[:max_length]
        assert ids.count(UNK) == (4 if has_image else 0)
        assert ids.count(GMASK) == ids.count(SOP) == 1
        assert ids[-1] == EOP or len(ids) == max_length
        expected = SequenceStatistics(
            1,
            len(turns),
            expected.shortened + (start > 0),
            expected.turns_left_out + start,
            expected.cut_answers + (len(uncut) > max_length),
            expected.tokens_cut + max(len(uncut) - max_length, 0),
        )
    assert sequences.statistics == expected


@given(dialogues, st.sampled_from(LANGUAGES))
def test_the_length_that_decides_what_is_measured_is_a_bound(turns: list[tuple[str, str]], has_image: bool) -> None:
    whole = sample(*turns, image=IMAGE if has_image else None)
    sequences = TrainingSequences([whole], PROCESSOR, max_length=10_000)
    for row, bound in zip(sequences, sequences.lengths, strict=True):
        assert len(tokens(row)) <= bound


def test_the_statistics_says_what_was_lost() -> None:
    turns = [("abcdefgh", "ijklmnop")] * 6
    statistics = TrainingSequences([sample(*turns)], PROCESSOR, max_length=60).statistics
    assert (statistics.dialogues, statistics.sequences) == (1, 6)
    assert statistics.turns_left_out > statistics.shortened > 0
    shown = f"{statistics.shortened} histories lost their {statistics.turns_left_out} oldest turns"
    assert str(statistics) == f"1 dialogues with 6 answers to learn; {shown}"
    long = TrainingSequences([sample(("?", "x y z " * 50))], PROCESSOR, max_length=40).statistics
    assert str(long) == f"1 answers to learn; 1 answers lost their last {long.tokens_cut} tokens"


def test_all_questions_without_room_are_counted_and_five_named() -> None:
    rows = [sample(("word " * 100, "a"), name=f"b.json#{number}") for number in range(7)]
    with pytest.raises(DataError, match=r"^7 of the sequences") as caught:
        TrainingSequences([*rows, sample(("q", "a"))], PROCESSOR, max_length=40)
    assert "b.json#4: " in str(caught.value)
    assert str(caught.value).endswith("and 2 more")


def test_samples_made_on_demand_are_measured_without_their_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = SceneDialogues(60, seed=1)
    drawn = [(scene.turns, scene.image is not None, scene.language) for scene in scenes]
    assert list(scenes.dialogues()) == drawn
    monkeypatch.setattr("vglm.worlds.pretraining.render", None)
    assert len(TrainingSequences(scenes, PROCESSOR, max_length=500)) == sum(len(turns) for turns, _, _ in drawn)


def test_samples_made_on_demand_are_not_measured_where_none_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = SceneDialogues(1500, seed=2)
    measured = TrainingSequences(scenes, PROCESSOR, max_length=500).lengths
    monkeypatch.setattr(SceneDialogues, "dialogues", None)
    last = TrainingSequences(scenes, PROCESSOR, max_length=500, answers="last")
    assert measured.max() <= last.lengths.max()
    assert (len(last), last.statistics.sequences) == (1500, 1500)
    assert last[7] == scenes[7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 0}, "max_length must be a positive integer, got 0"),
        ({"max_length": 9, "answers": "first"}, "answers must be every or last, got 'first'"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingSequences([], PROCESSOR, **options)  # type: ignore[arg-type]


def test_samples_of_a_table_are_measured_as_others_are(tmp_path: Path) -> None:
    single = [sample(("问é" * (n % 7 + 1), "答½ﷺ —" * (n % 40 + 1)), name=f"{n}", image=None) for n in range(300)]
    for rows in (single, [*single, sample(("q1", "a1"), ("q2", "a2"), name="two", image=None)]):
        table = write_table(tmp_path / f"{len(rows)}.arrow", rows)
        for stored, expected in ((table, rows), (Selection(table, [5, 3, 299]), [rows[5], rows[3], rows[299]])):
            one, other = (TrainingSequences(some, PROCESSOR, max_length=300) for some in (stored, expected))
            assert one.lengths.tolist() == other.lengths.tolist()
            assert (one.statistics, list(one)) == (other.statistics, list(other))
