from collections import Counter, defaultdict

import numpy as np
import pytest

from vglm.text.prompt import LANGUAGES, Language
from vglm.worlds.background import ANSWERS, QUESTION
from vglm.worlds.questions import (
    ATTRIBUTE_KINDS,
    QUESTION_KINDS,
    TEXT_ONLY_KINDS,
    answer_to,
    ask,
    characters,
    gb2312_level_1,
)
from vglm.worlds.scenes import Scene, sample_scene

CATS = Scene("cat", "red", 3, "beach", (), 0)
BOAT = Scene("boat", "white", 1, "night sky", (), 0)
UMBRELLA = Scene("umbrella", "orange", 1, "sea", (), 0)
FISH = Scene("fish", "black", 2, "wheat field", (), 0)


@pytest.mark.parametrize(
    ("scene", "kind", "chinese", "english"),
    [
        (CATS, "subject", "猫。", "Cats."),
        (CATS, "colour", "红色。", "Red."),
        (CATS, "count", "三只。", "Three."),
        (CATS, "place", "在沙滩上。", "On the beach."),
        (CATS, "caption", "沙滩上有三只红色的猫。", "Three red cats on the beach."),
        (BOAT, "subject", "帆船。", "A boat."),
        (BOAT, "caption", "夜空中有一艘白色的帆船。", "One white boat in the night sky."),
        (UMBRELLA, "subject", "雨伞。", "An umbrella."),
        (FISH, "subject", "鱼。", "Fish."),
        (FISH, "count", "两条。", "Two."),
        (FISH, "caption", "麦田里有两条黑色的鱼。", "Two black fish in the wheat field."),
    ],
)
def test_answers(scene: Scene, kind: str, chinese: str, english: str) -> None:
    assert answer_to(scene, kind, language="zh") == chinese
    assert answer_to(scene, kind, language="en") == english


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", [*ATTRIBUTE_KINDS, "caption"])
def test_many_wordings_one_answer(kind: str, language: Language) -> None:
    rng = np.random.default_rng(0)
    turns = [ask(CATS, kind, language, rng) for _ in range(300)]
    assert {turn.answer for (turn,) in turns} == {answer_to(CATS, kind, language)}
    assert len({turn.question for (turn,) in turns}) >= 15


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_question_and_a_scene_fix_the_answer(language: Language) -> None:
    answers = defaultdict(set)
    rng = np.random.default_rng(1)
    for kind in QUESTION_KINDS:
        for _ in range(2_000):
            *history, last = ask(CATS, kind, language, rng)
            text_only = kind in TEXT_ONLY_KINDS
            answers[text_only, tuple(turn.question for turn in history), last.question].add(last.answer)
    assert all(len(different) == 1 for different in answers.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_yes_and_no_are_equally_likely_whatever_is_supposed(language: Language) -> None:
    yes = "Yes." if language == "en" else "是的。"
    for scene in (CATS, BOAT):
        rng = np.random.default_rng(2)
        answers = Counter(ask(scene, "yes_no", language, rng)[0].answer for _ in range(2_000))
        assert set(answers) == ({"Yes.", "No."} if language == "en" else {"是的。", "不是。"})
        assert answers[yes] == pytest.approx(1_000, abs=100)
    rng = np.random.default_rng(3)
    word = "purple" if language == "en" else "紫色"
    supposed = [
        turn.answer == yes
        for _ in range(8_000)
        for turn in ask(sample_scene(rng), "yes_no", language, rng)
        if word in turn.question
    ]
    assert len(supposed) > 150
    assert np.mean(supposed) == pytest.approx(0.5, abs=0.15)


def test_yes_is_said_of_what_is_there() -> None:
    rng = np.random.default_rng(4)
    for _ in range(500):
        (turn,) = ask(CATS, "yes_no", "en", rng)
        words = turn.question.lower()
        if any(colour in words for colour in ("orange", "yellow", "green", "blue", "purple", "black", "white")):
            assert turn.answer == "No."
        if "red" in words.split() or "red?" in words:
            assert turn.answer == "Yes."


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_number_of_subjects_does_not_show_in_questions_about_it(language: Language) -> None:
    questions = []
    for count in (1, 4):
        scene = Scene("cat", "red", count, "beach", (), 0)
        rng = np.random.default_rng(5)
        questions.append([ask(scene, "count", language, rng)[0].question for _ in range(200)])
    assert questions[0] == questions[1]


def test_dialogues_ask_for_something_the_first_turn_does_not_say() -> None:
    rng = np.random.default_rng(6)
    answers = {kind: answer_to(CATS, kind, language="zh") for kind in ATTRIBUTE_KINDS}
    seen = Counter()
    for _ in range(300):
        first, second = ask(CATS, "dialogue", "zh", rng)
        assert first.answer in answers.values()
        assert first.answer != second.answer
        seen[second.answer] += 1
    assert set(seen) == {answers["colour"], answers["count"], answers["place"]}


def test_repeating_reaches_every_character() -> None:
    rng = np.random.default_rng(7)
    seen = set()
    for _ in range(20_000):
        (turn,) = ask(CATS, "repeat", "zh", rng)
        assert turn.question.endswith(turn.answer)
        assert 2 <= len(turn.answer) <= 4
        seen |= set(turn.answer)
    assert seen == set(gb2312_level_1())
    (turn,) = ask(CATS, "repeat", "en", rng)
    assert turn.question.endswith(f": {turn.answer}")


def test_the_character_list_covers_all_texts() -> None:
    level_1 = gb2312_level_1()
    assert (len(level_1), level_1[0], level_1[-1]) == (3755, "啊", "座")
    listed = set(characters()) | {" "}
    assert len(characters()) == len(set(characters()))
    rng = np.random.default_rng(8)
    texts = [QUESTION, *ANSWERS.values()]
    for kind in QUESTION_KINDS:
        for _ in range(1_000):
            for turn in ask(sample_scene(rng), kind, LANGUAGES[int(rng.integers(2))], rng):
                texts += [turn.question, turn.answer]
    assert set("".join(texts)) <= listed


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_the_background_task_is_not_given_away(kind: str, language: Language) -> None:
    if kind == "repeat":
        return
    rng = np.random.default_rng(9)
    for _ in range(1_000):
        for turn in ask(sample_scene(rng), kind, language, rng):
            text = turn.question + turn.answer
            assert "背景" not in text
            assert "background" not in text.lower()
            assert "{" not in text
            if language == "zh":
                assert turn.answer.endswith("。")
            else:
                assert turn.answer.endswith(".")
