r"""Prompt templates: a task's wording of each question, filled in with fields of the sample.

fill_template(samples, "Hint: {hint}\n{question}\n{options}\nAnswer with the option's letter.")

Hint: These rock pools are on the coast.            (this line is left out where there is no hint)
Which of these animals lives in them?
A. a limpet
B. a camel
Answer with the option's letter.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vglm.data.sample import Sample, Turn
from vglm.errors import ConfigError

QUESTION = "{question}"
"""The template that changes nothing."""


def fill_template(samples: Sequence[Sample], template: str, setting: str = "task.prompt") -> Sequence[Sample]:
    r"""Reword the last question of every sample.

    Args:
        samples: The samples, as they were read; they stay as they are.
        template: Text with fields in braces: `{question}`, and the names of what the samples' `meta` holds, lists being
            joined by commas. A line whose fields are all empty for a sample is left out; `{{` and `}}` are braces, and
            `\n`, as written on a command line, breaks the line.
        setting: What an error calls it.

    Returns:
        The samples in their order, each with its new question. With `QUESTION`, what came in.

    Raises:
        ConfigError: The template cannot be read, or has a field that not all samples have.
    """
    lines = parse_template(template, setting)
    if template == QUESTION:
        return samples
    requested = list(dict.fromkeys(field for line in lines for _, field in line if field is not None))
    lacking: dict[str, int] = {}
    filled = []
    for sample in samples:
        values = {**sample.meta, "question": sample.question}
        if missing := [field for field in requested if field not in values]:
            lacking |= {field: lacking.get(field, 0) + 1 for field in missing}
            continue
        *history, last = sample.turns
        question = _fill(lines, values)
        filled.append(replace(sample, turns=(*history, Turn(question, last.answer))))
    if lacking:
        first = next(iter(lacking))
        fields = sorted({"question", *(name for sample in samples[:100] for name in sample.meta)})
        raise ConfigError(
            f"{setting}: {lacking[first]} of {len(samples)} samples have no {{{first}}}; there are"
            f" {', '.join(f'{{{name}}}' for name in fields)}. Correct the template."
        )
    return filled


def parse_template(template: str, setting: str = "task.prompt") -> list[list[tuple[str, str | None]]]:
    """Take a template apart.

    Args:
        template: As for `fill_template`.
        setting: What an error calls it.

    Returns:
        For each of its lines pieces of (text, the field after it or None).

    Raises:
        ConfigError: A brace is not closed, or a field is not a plain name.
    """
    lines = []
    for line in template.replace("\\n", "\n").split("\n"):
        try:
            pieces = list(string.Formatter().parse(line))
        except ValueError as error:
            raise ConfigError(f"{setting}: {line!r} cannot be read: {error}. Write braces as {{{{ and }}}}.") from error
        for _, field, form, conversion in pieces:
            if field is not None and (not field or form or conversion or any(sign in field for sign in ".[]")):
                raise ConfigError(f"{setting}: {line!r} has a field {{{field}}} that is no plain name. Correct it.")
        lines.append([(text, field) for text, field, _, _ in pieces])
    if not any(text.strip() or field for line in lines for text, field in line):
        raise ConfigError(f"{setting} is empty. Write what is to be asked, such as {{question}}.")
    return lines


def _fill(lines: Sequence[Sequence[tuple[str, str | None]]], values: Mapping[str, Any]) -> str:
    written = []
    for line in lines:
        texts = [_text(values[field]) for _, field in line if field is not None]
        if texts and not any(texts):
            continue
        written.append("".join(text + (_text(values[field]) if field is not None else "") for text, field in line))
    return "\n".join(written)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
