"""A reporting checklist after CLAIM 2024 and TRIPOD-LLM: items answered by the records, and items left to the author.

The items are in our own words, in the order of those lists; journals ask for the lists' own forms, which these answers
fill. An item names the facts that answer it, see `vglm.evaluation.paper.methods.FACTS`; one without facts is for the
author, and so is what an item's `open` says.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vglm.evaluation.paper.methods import Account, in_a_row
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.markdown import as_words
from vglm.text.messages import Text, join
from vglm.text.prompt import Language

say = section_texts(__file__)
LONG = ("signatures", "statistics", "controls", "baselines")
"""Facts of which the checklist says only where they are."""


def write_checklist(account: Account, tables: Sequence[str], language: Language) -> str:
    """The checklist as Markdown: a ticked box where the records answer an item and nothing is left open.

    Args:
        account: What the records say.
        tables: Names of the files with the scores, which answer items on results.
        language: Of the text.
    """

    def pick(text: Text) -> str:
        return str(getattr(text, language))

    lines = [f"# {pick(say('checklist'))}", "", pick(say("checklist_about")), ""]
    for guide in yaml.safe_load(Path(__file__).with_name("checklist.yaml").read_text(encoding="utf-8")):
        lines += [f"## {guide['guide']}", ""]
        for item in guide["items"]:
            answers, remaining = _answer(item, account, tables)
            box = "x" if answers and not remaining else " "
            lines.append(f"- [{box}] **{as_words(item['item'][language])}**")
            lines += [f"  - {as_words(pick(in_a_row(answers)))}"] if answers else []
            lines += [f"  - {pick(say('open'))} {as_words(pick(join(remaining, ';')))}"] if remaining else []
        lines.append("")
    return "\n".join(lines)


def _answer(item: Mapping[str, Any], account: Account, tables: Sequence[str]) -> tuple[Sequence[Text], Sequence[Text]]:
    """(the answer of the records to an item, what is left to the author)."""
    facts = item.get("facts", ())
    answers = [sentence for key in facts if key not in LONG for sentence in account.sentences.get(key, ())]
    files = ["methods.md"] if any(account.sentences.get(key) for key in facts if key in LONG) else []
    if files := [*files, *(tables if item.get("tables") else ())]:
        answers.append(say("see", files=", ".join(files)))
    remaining = [*account.missing(facts), *_texts(item.get("open"))]
    return answers, remaining if answers or remaining else [say("for_author")]


def _texts(words: Mapping[str, str] | None) -> Iterable[Text]:
    return () if words is None else (Text(**words),)
