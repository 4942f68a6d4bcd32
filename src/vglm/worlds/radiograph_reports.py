"""Reports on a synthetic chest, in Chinese and English, and the way back from a report to its findings.

    frontal  心影增大，右肺中野见片状阴影，左侧胸腔积液，未见气胸，左侧见起搏器。结论：胸片异常。
             Enlarged heart. Opacity in the right middle zone. Left effusion. No pneumothorax. Left pacemaker.
             Abnormal chest.
    lateral  心影增大，中肺野见片状阴影，有胸腔积液，未见气胸，见起搏器。结论：胸片异常。
             Enlarged heart. Opacity in the middle zone. Effusion. No pneumothorax. Pacemaker. Abnormal chest.

Every report speaks of the same five things in the same order, and says what is absent as well. There is one right
wording for a picture, so that exact match means something. A lateral picture does not show sides, and its report names
none. The question is XrayGLM's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vglm.data.readers.xrayglm import ENGLISH_QUESTION, QUESTION
from vglm.data.sample import Turn
from vglm.text.prompt import Language
from vglm.worlds.radiographs import Chest, View

QUESTIONS: Mapping[Language, str] = {"zh": QUESTION, "en": ENGLISH_QUESTION}
"""XrayGLM's."""

FINDINGS = ("heart", "opacity", "effusion", "pneumothorax")
"""What makes a chest abnormal."""

_ZH_SIDES = {"left": "左", "right": "右", "both": "双"}
_ZH_ZONES = {"upper": "上", "middle": "中", "lower": "下"}

_WORDS = {
    "heart": r"心|heart|cardi",
    "opacity": r"阴影|双肺清晰|opacit|lungs",
    "effusion": r"积液|effusion",
    "pneumothorax": r"气胸|pneumothora",
    "device": r"起搏器|导管|pacemaker|catheter",
}
_ABSENT = r"未见|无|不大|清晰|正常|\bno\b|normal|clear|without"
_SENTENCES = r"[，。,.;；]"
_CONCLUSION = r"结论|\bchest$"


@dataclass(frozen=True, slots=True)
class ReportedFindings:
    """What a report says of each finding.

    Attributes:
        stated: Finding (`FINDINGS`, and "device") -> whether it is said to be there; what is not spoken of is left out.
        details: Finding -> the words about it, for those said to be there.
    """

    stated: dict[str, bool]
    details: dict[str, str]

    @property
    def is_abnormal(self) -> bool:
        """Whether any finding besides a device is said to be there."""
        return any(self.stated.get(name, False) for name in FINDINGS)


def report_turn(chest: Chest, view: View, language: Language) -> Turn:
    """The question about a picture and its right answer."""
    return Turn(QUESTIONS[language], write_report(chest, view, language))


def write_report(chest: Chest, view: View, language: Language) -> str:
    """The one right report on a picture.

    Args:
        chest: What it shows.
        view: A lateral picture's report names no sides.
        language: What it is written in.
    """
    return _english(chest, view) if language == "en" else _chinese(chest, view)


NORMAL_REPORTS: Mapping[Language, str] = {
    "zh": "心影不大，双肺清晰，未见胸腔积液，未见气胸，未见导管或起搏器。结论：胸片正常。",
    "en": "Normal heart. Clear lungs. No effusion. No pneumothorax. No catheter or pacemaker. Normal chest.",
}
"""The report that fits most pictures: what a model that does not look would best say."""


def read_report(report: str) -> ReportedFindings:
    """Find what a report in this world's wording says; the concluding sentence does not count.

    Args:
        report: Chinese or English text. Other wordings are understood only as far as they use the same words and the
            same kinds of negation; a sentence that speaks of two findings counts for both.

    Returns:
        The findings. A finding both affirmed and denied counts as affirmed.
    """
    stated: dict[str, bool] = {}
    details: dict[str, str] = {}
    for sentence in re.split(_SENTENCES, report.lower()):
        if re.search(_CONCLUSION, sentence):
            continue
        is_there = re.search(_ABSENT, sentence) is None
        for name, words in _WORDS.items():
            if re.search(words, sentence):
                stated[name] = stated.get(name, False) or is_there
                if is_there:
                    details[name] = sentence.strip()
    return ReportedFindings(stated, details)


def _chinese(chest: Chest, view: View) -> str:
    is_frontal = view == "frontal"
    parts = ["心影增大" if chest.heart == "enlarged" else "心影不大"]
    if chest.opacity is None:
        parts.append("双肺清晰")
    else:
        zone = _ZH_ZONES[chest.opacity.zone]
        parts.append(f"{_ZH_SIDES[chest.opacity.side]}肺{zone}野见片状阴影" if is_frontal else f"{zone}肺野见片状阴影")
    if chest.effusion == "none":
        parts.append("未见胸腔积液")
    else:
        parts.append(f"{_ZH_SIDES[chest.effusion]}侧胸腔积液" if is_frontal else "有胸腔积液")
    if chest.pneumothorax == "none":
        parts.append("未见气胸")
    else:
        parts.append(f"{_ZH_SIDES[chest.pneumothorax]}侧气胸" if is_frontal else "有气胸")
    if chest.device == "none":
        parts.append("未见导管或起搏器")
    else:
        name = "起搏器" if chest.device == "pacemaker" else "导管"
        parts.append(f"{_ZH_SIDES[chest.device_side]}侧见{name}" if is_frontal else f"见{name}")
    return f"{'，'.join(parts)}。结论：胸片{'异常' if chest.is_abnormal else '正常'}。"


def _english(chest: Chest, view: View) -> str:
    is_frontal = view == "frontal"
    parts = ["Enlarged heart" if chest.heart == "enlarged" else "Normal heart"]
    if chest.opacity is None:
        parts.append("Clear lungs")
    else:
        side = f"{chest.opacity.side} " if is_frontal else ""
        parts.append(f"Opacity in the {side}{chest.opacity.zone} zone")
    for name, sides in (("effusion", chest.effusion), ("pneumothorax", chest.pneumothorax)):
        if sides == "none":
            parts.append(f"No {name}")
        else:
            side = "Bilateral" if sides == "both" else sides.capitalize()
            parts.append(f"{side} {name}" if is_frontal else name.capitalize())
    if chest.device == "none":
        parts.append("No catheter or pacemaker")
    else:
        parts.append(f"{chest.device_side.capitalize()} {chest.device}" if is_frontal else chest.device.capitalize())
    return f"{'. '.join(parts)}. {'Abnormal' if chest.is_abnormal else 'Normal'} chest."
