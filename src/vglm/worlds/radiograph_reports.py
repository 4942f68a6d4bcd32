"""Reports on a synthetic chest, in Chinese and English.

    frontal  心影增大，右肺中野见片状阴影，左侧胸腔积液，未见气胸，左侧见起搏器。结论：胸片异常。
             Enlarged heart. Opacity in the right middle zone. Left effusion. No pneumothorax. Left pacemaker.
             Abnormal chest.
    lateral  心影增大，中肺野见片状阴影，有胸腔积液，未见气胸，见起搏器。结论：胸片异常。
             Enlarged heart. Opacity in the middle zone. Effusion. No pneumothorax. Pacemaker. Abnormal chest.

Every report covers the same five findings in the same order, and states what is absent as well. There is one right
wording for a picture, so that exact match means something. A lateral picture does not show sides, and its report names
none. The question is XrayGLM's.
"""

from collections.abc import Mapping

from vglm.data.readers.xrayglm import ENGLISH_QUESTION, QUESTION
from vglm.data.sample import Turn
from vglm.text.prompt import Language
from vglm.worlds.radiographs import Chest, View

QUESTIONS: Mapping[Language, str] = {"zh": QUESTION, "en": ENGLISH_QUESTION}
"""XrayGLM's."""

_ZH_SIDES = {"left": "左", "right": "右", "both": "双"}
_ZH_ZONES = {"upper": "上", "middle": "中", "lower": "下"}


def report_turn(chest: Chest, view: View, language: Language) -> Turn:
    """The question about a picture and its right answer."""
    return Turn(QUESTIONS[language], write_report(chest, view, language))


def write_report(chest: Chest, view: View, language: Language) -> str:
    """The correct report on a picture.

    Args:
        chest: What it shows.
        view: A lateral picture's report names no sides.
        language: What it is written in.
    """
    return _english(chest, view) if language == "en" else _chinese(chest, view)


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
