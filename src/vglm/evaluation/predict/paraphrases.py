"""The same questions in other words: how much of a score depends on how it was asked?

    prompts.txt                              one template a line; or a YAML list of them, in a .yaml file
        {question}
        请看图回答：{question}
        Look at the picture. {question}

python evaluate.py run=latest prompts=prompts.txt

A paraphrase replaces the question; a task's prompt is still put around it. No torch is needed here.
"""

import random
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from vglm.data.sample import Sample
from vglm.data.templates import QUESTION, fill_template, parse_template
from vglm.errors import ConfigError
from vglm.evaluation.messages import Message
from vglm.evaluation.predict.controls import Control
from vglm.evaluation.predictions import PARAPHRASE, Arm
from vglm.files import parse_yaml, read_text

MAX_PARAPHRASES = 20
MAX_SAMPLES = 100
"""Test questions that are asked in other words; of more, this many are drawn by seed."""


def read_paraphrases(path: str | PathLike[str] | None) -> tuple[str, ...]:
    """The templates of a file, in order.

    Args:
        path: A text file with a template on each line that is not blank, or a `.yaml` or `.yml` file with a list of
            texts; None for no paraphrases. See `vglm.data.templates.fill_template` for what a template is. The
            template `{question}` is left out, for so the arms are asked anyway.

    Raises:
        ConfigError: The file cannot be read, has none, too many or a repeated one, or one is not a template.
    """
    if path is None:
        return ()
    path = Path(path)
    templates = [template for template in _templates_in(path) if template != QUESTION]
    if not 1 <= len(templates) <= MAX_PARAPHRASES:
        raise ConfigError(
            f"prompts: {path} has {len(templates)} paraphrases; expected 1 to {MAX_PARAPHRASES}, such as"
            " 'Look at the picture. {question}', one a line."
        )
    for index, template in enumerate(templates):
        parse_template(template, "prompts")
        if template in templates[:index]:
            raise ConfigError(f"prompts: {path} has {template!r} twice. Remove one.")
    return tuple(templates)


def _templates_in(path: Path) -> list[str]:
    advice = "Pass a file of paraphrases, one a line, or prompts=null."
    text = read_text(path, error=ConfigError, advice=advice)
    if path.suffix not in (".yaml", ".yml"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    listed = parse_yaml(text, f"prompts: {path}", error=ConfigError, advice="Put each template into quotes.")
    if not isinstance(listed, list) or not all(isinstance(template, str) for template in listed):
        raise ConfigError(f"prompts: {path} must be a YAML list of texts. Put each template into quotes.")
    return [template.strip() for template in listed]


def make_paraphrases(
    splits: Mapping[str, Sequence[Sample]], templates: Sequence[str], seed: int
) -> tuple[Control, ...]:
    """The test questions in other words, a control for each template, all of the same samples.

    Args:
        splits: Split name -> samples; only `test` is asked in other words.
        templates: As `read_paraphrases` gave them.
        seed: Of the draw among more than `MAX_SAMPLES` samples.

    Raises:
        ConfigError: A template has a field that not all of the samples have.
    """
    test = splits.get("test", ())
    rows = range(len(test))
    chosen = [test[row] for row in sorted(random.Random(seed).sample(rows, min(MAX_SAMPLES, len(rows))))]
    controls = []
    for index, template in enumerate(templates, start=1):
        arm = Arm(label=f"{PARAPHRASE}-{index}", meaning=Message("control_meaning.prompt", {"template": template}))
        controls.append(Control(arm, fill_template(chosen, template, "prompts")))
    return tuple(control for control in controls if control.samples)
