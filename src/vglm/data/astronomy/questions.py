"""Questions about a star, in Chinese and English, each with its one right answer.

    question    Chinese, answer                                    English, answer
    type        这颗星是什么类型的变星？  天琴座RR型变星。         What type of variable star is this?  RR Lyrae star.
    period      它的光变周期大约是多少？  约0.5天。                What is its period?  About 0.5 days.
    amplitude   它的光变幅度大约是多少？  约1星等。                What is its amplitude?  About 1 mag.

Periods and amplitudes are rounded to the nearest of 1, 2 and 5 times a power of ten: as finely as a picture of 64
pixels can be read, and so that exact match means something.
"""

import difflib
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vglm.data.sample import Turn
from vglm.errors import DataError
from vglm.text.prompt import Language

Question = Literal["type", "period", "amplitude"]
QUESTIONS: tuple[Question, ...] = ("type", "period", "amplitude")


@dataclass(frozen=True, slots=True)
class StarType:
    """A type of variable star by its names.

    Attributes:
        chinese: As Chinese answers have it.
        english: As English answers have it.
        codes: What catalogues call it, such as the GCVS, in capitals.
    """

    chinese: str
    english: str
    codes: tuple[str, ...]


TYPES: Mapping[str, StarType] = {
    "eclipsing": StarType("食双星", "Eclipsing binary", ("E", "EA", "EB", "EW", "ECL", "EC", "ED", "ESD")),
    "delta_scuti": StarType("盾牌座δ型变星", "Delta Scuti star", ("DSCT", "DSCTC", "DSCUTI", "HADS", "SXPHE")),
    "gamma_doradus": StarType("剑鱼座γ型变星", "Gamma Doradus star", ("GDOR",)),
    "rr_lyrae": StarType("天琴座RR型变星", "RR Lyrae star", ("RR", "RRL", "RRLYR", "RRAB", "RRC", "RRD")),
    "hybrid": StarType("混合型脉动变星", "Hybrid pulsator", ("HYBRID", "DSCT+GDOR", "GDOR+DSCT", "DSCT|GDOR")),
    "type_ii_cepheid": StarType("第二型造父变星", "Type II Cepheid", ("T2CEP", "CW", "CWA", "CWB", "BLHER", "WVIR")),
}
"""The types this workbench knows by name, rare ones last."""

_WORDINGS: dict[tuple[Question, Language], tuple[str, ...]] = {
    ("type", "zh"): ("这颗星是什么类型的变星？", "图中的光变曲线属于哪类变星？", "请判断这颗变星的类型。"),
    ("type", "en"): (
        "What type of variable star is this?",
        "Which class of variable shows this light curve?",
        "Classify this variable star.",
    ),
    ("period", "zh"): ("它的光变周期大约是多少？", "这颗星的周期是多少天？", "请估计光变周期。"),
    ("period", "en"): ("What is its period?", "How many days is the period of this star?", "Estimate the period."),
    ("amplitude", "zh"): ("它的光变幅度大约是多少？", "这颗星的光变幅度有多大？", "请估计光变幅度。"),
    ("amplitude", "en"): ("What is its amplitude?", "By how much does this star vary?", "Estimate the amplitude."),
}


def find_type(name: str) -> str | None:
    """Find a type by its key in `TYPES`, its English or Chinese name, or a catalogue's code (`RRAB`, `EA/SD`).

    Case, blanks, hyphens and underscores do not count; behind a code's `/` or `:` may stand more. The answer is the
    key, or None.
    """
    plain = _plain(name)
    for key, type in TYPES.items():
        if plain in {_plain(key), _plain(type.english), _plain(type.chinese), *type.codes}:
            return key
    head = plain.replace(":", "/").split("/")[0]
    return find_type(head) if head != plain else None


def type_fault(name: str) -> tuple[str, str, str]:
    """The error message for a type that is not in `TYPES`."""
    names = [
        *TYPES,
        *(type.english for type in TYPES.values()),
        *(code for type in TYPES.values() for code in type.codes),
    ]
    close = difflib.get_close_matches(name, names, n=1)
    fix = f"write {close[0]!r}" if close else "correct it, or keep your own names with dataset.options.other_types=true"
    return f"a type among {', '.join(TYPES)} or a catalogue's code for one", repr(name), fix


def ask(question: Question, value: str | float, language: Language, star: str) -> Turn:
    """One question and its answer.

    Args:
        question: The question.
        value: For "type" a key of `TYPES`, or any other name, which is then the answer in both languages; for "period"
            days, for "amplitude" magnitudes.
        language: Of question and answer.
        star: Chooses among the wordings, always the same for one star.

    Raises:
        DataError: A period or amplitude is not a positive number.
    """
    english = language == "en"
    wordings = _WORDINGS[question, language]
    wording = wordings[zlib.crc32(f"{star} {question}".encode()) % len(wordings)]
    if question == "type":
        names = TYPES.get(str(value))
        name = str(value) if names is None else names.english if english else names.chinese
        return Turn(wording, f"{name}{'.' if english else '。'}")
    number = about(float(value))
    if question == "period":
        return Turn(wording, f"About {number} day{'' if number == '1' else 's'}." if english else f"约{number}天。")
    return Turn(wording, f"About {number} mag." if english else f"约{number}星等。")


def about(value: float) -> str:
    """A positive number to the nearest, on a logarithmic scale, of 1, 2 and 5 times a power of ten, without exponent.

    Raises:
        DataError: The number is not positive and finite.
    """
    if not (math.isfinite(value) and value > 0):
        raise DataError(f"expected a positive number, found {value:g}")
    power = math.floor(math.log10(value))
    steps = [(step, power) for step in (1, 2, 5)] + [(1, power + 1)]
    step, power = min(steps, key=lambda pair: abs(math.log10(value) - math.log10(pair[0]) - pair[1]))
    return f"{step * 10**power:d}" if power >= 0 else f"{step * 10.0**power:.{-power}f}"


def _plain(name: str) -> str:
    return "".join(character for character in name.upper() if character not in " -_")
