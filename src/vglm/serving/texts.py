"""Every text of the terminal and the web pages, in English and Chinese, from `messages.yaml`."""

import os
from pathlib import Path
from typing import Any

from vglm.text.messages import LANGUAGE_VARIABLE, Texts
from vglm.text.prompt import Language

_TEXTS = Texts(Path(__file__).with_name("messages.yaml"))


def default_language() -> Language:
    """That of the environment: of `VGLM_LANG`, else Chinese where its locale is, else English."""
    names = (os.environ.get(name, "") for name in (LANGUAGE_VARIABLE, "LC_ALL", "LC_MESSAGES", "LANG"))
    return "zh" if next(filter(None, names), "").startswith("zh") else "en"


def chat_texts(language: Language) -> dict[str, str]:
    """The texts of `vglm chat`."""
    return _part("chat.", language)


def web_texts(language: Language) -> dict[str, str]:
    """The texts of `vglm web`."""
    return _part("web.", language)


def rating_texts(language: Language) -> dict[str, Any]:
    """The texts of `vglm rate`; under `findings`, what findings are called."""
    from vglm.evaluation.report.sections import findings
    from vglm.evaluation.score.metrics.findings import FINDINGS

    names = {name: getattr(findings.say.name("class", name), language) for name in FINDINGS}
    return {**_part("rating.", language), "findings": names}


def _part(prefix: str, language: Language) -> dict[str, str]:
    texts = {key: text for key, text in _TEXTS.own.items() if key.startswith(prefix)}
    return {key.removeprefix(prefix): getattr(text, language) for key, text in texts.items()}
