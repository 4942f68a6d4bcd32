import re

import builders
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vglm.data.sample import Sample
from vglm.data.templates import QUESTION, fill_template
from vglm.errors import ConfigError


def sample(question: str = "Which?", id: str = "a", **meta: object) -> Sample:
    return builders.sample(id, ("Hi", "Hello"), (question, "B"), **meta)


def test_the_last_question_is_asked_in_the_templates_words() -> None:
    one = sample(hint="Look.", options="A. a\nB. b", choices=["A", "B"])
    (filled,) = fill_template([one], "Hint: {hint}\n{question}\n{options}\nOne of {choices}, {{}}.")
    assert filled.question == "Hint: Look.\nWhich?\nA. a\nB. b\nOne of A, B, {}."
    assert filled.turns[0] == one.turns[0]
    assert (filled.answer, filled.id, filled.meta) == (one.answer, one.id, one.meta)
    assert one.question == "Which?"


def test_a_line_without_anything_to_say_is_left_out() -> None:
    template = "Hint: {hint}\n\n{question}"
    assert fill_template([sample(hint="")], template)[0].question == "\nWhich?"
    assert fill_template([sample(hint="x")], template)[0].question == "Hint: x\n\nWhich?"
    assert fill_template([sample(hint="", more="y")], "{hint}{more}!")[0].question == "y!"


def test_a_line_break_may_be_written_on_a_command_line() -> None:
    assert fill_template([sample()], r"{question}\nShort.")[0].question == "Which?\nShort."


def test_the_plain_question_changes_nothing() -> None:
    samples = [sample()]
    assert fill_template(samples, QUESTION) is samples


def test_fields_that_samples_lack_are_told_once() -> None:
    samples = [sample(hint=""), sample(id="b"), sample(id="c")]
    with pytest.raises(ConfigError, match=re.escape("2 of 3 samples have no {hint}; there are {hint}, {question}.")):
        fill_template(samples, "{hint} {question}")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{question", "cannot be read"),
        ("{}", "no plain name"),
        ("{question.__class__}", "no plain name"),
        ("{question!r}", "no plain name"),
        ("{question:>9}", "no plain name"),
        (" \n", "is empty"),
    ],
)
def test_what_is_no_template_is_refused(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"task.prompt.*{message}"):
        fill_template([sample()], template)


@given(st.text(max_size=30), st.text(st.characters(exclude_characters="{}\\\n"), max_size=20))
def test_values_are_never_read_as_templates(value: str, before: str) -> None:
    (filled,) = fill_template([sample(value)], f"{before}{{question}}!")
    assert filled.question == ("" if not value else f"{before}{value}!")
