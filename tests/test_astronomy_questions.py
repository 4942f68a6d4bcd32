import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vglm.data.astronomy.questions import QUESTIONS, TYPES, about, ask, find_type, type_fault
from vglm.errors import DataError
from vglm.text.prompt import LANGUAGES
from vglm.worlds.lightcurves import SHARES


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.026, "0.02"),
        (0.04, "0.05"),
        (0.55, "0.5"),
        (0.75, "1"),
        (1.4, "1"),
        (1.5, "2"),
        (3.3, "5"),
        (7.2, "10"),
        (30, "20"),
    ],
)
def test_numbers_are_told_to_the_nearest_of_one_two_five(value: float, text: str) -> None:
    assert about(value) == text


@given(st.floats(1e-6, 1e6))
def test_a_told_number_is_within_a_factor_of_its_grid(value: float) -> None:
    text = about(value)
    assert "e" not in text
    assert abs(math.log10(float(text) / value)) <= math.log10(2.5) / 2 + 1e-9
    assert about(float(text)) == text


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_positive_number_is_refused(value: float) -> None:
    with pytest.raises(DataError, match="positive number"):
        about(value)


def test_every_simulated_kind_has_a_name_and_no_two_share_one() -> None:
    assert set(TYPES) == set(SHARES)
    for names in (
        [star_type.chinese for star_type in TYPES.values()],
        [star_type.english for star_type in TYPES.values()],
    ):
        assert len({name[0] for name in names}) == len(TYPES)  # already the first letter decides
    codes = [code for star_type in TYPES.values() for code in star_type.codes]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("rr_lyrae", "rr_lyrae"), ("RRAB", "rr_lyrae"), ("RR Lyrae star", "rr_lyrae"), ("天琴座RR型变星", "rr_lyrae"),
        ("EA/SD", "eclipsing"), ("ew", "eclipsing"), ("DSCT:", "delta_scuti"), ("Delta-Scuti", "delta_scuti"),
        ("GDOR", "gamma_doradus"), ("DSCT+GDOR", "hybrid"), ("cwb", "type_ii_cepheid"), ("ROT", None), ("", None),
    ],
)  # fmt: skip
def test_types_are_found_by_their_many_names(name: str, key: str | None) -> None:
    assert find_type(name) == key


def test_an_unknown_type_gets_a_suggestion() -> None:
    assert type_fault("RR Lyre star")[2] == "write 'RR Lyrae star'"
    assert "other_types=true" in type_fault("???")[2]


def test_answers_in_both_languages() -> None:
    answers = {
        (question, language): ask(question, value, language, "KIC 1").answer
        for question, value in zip(QUESTIONS, ("gamma_doradus", 0.97, 0.018), strict=True)
        for language in LANGUAGES
    }
    assert answers == {
        ("type", "zh"): "剑鱼座γ型变星。",
        ("type", "en"): "Gamma Doradus star.",
        ("period", "zh"): "约1天。",
        ("period", "en"): "About 1 day.",
        ("amplitude", "zh"): "约0.02星等。",
        ("amplitude", "en"): "About 0.02 mag.",
    }
    assert ask("type", "rotator", "en", "KIC 1").answer == "rotator."


def test_wordings_vary_with_the_star_and_stay_with_it() -> None:
    questions = [ask("type", "hybrid", "en", f"star {number}").question for number in range(30)]
    assert len(set(questions)) == 3
    assert questions == [ask("type", "eclipsing", "en", f"star {number}").question for number in range(30)]
