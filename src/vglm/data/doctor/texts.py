"""Checks of a single text: phrases and tokens that do not belong in an answer, and its language.

>>> marks_of("As an AI language model, I cannot see XXXX.")
<Mark.BOILERPLATE|UNRESOLVED: 6>
>>> language_of("心脏大小正常。"), language_of("Normal heart size."), language_of("12 %")
(<Script.CHINESE: 1>, <Script.LATIN: 2>, <Script.NONE: 0>)
"""

import re
import unicodedata
from enum import IntEnum, IntFlag


class Mark(IntFlag):
    """Problems of an answer; the last is not an error, but the model never produces such answers."""

    EMPTY = 1
    BOILERPLATE = 2
    UNRESOLVED = 4
    GARBLED = 8
    DETACHED = 16


class Script(IntEnum):
    """The script that most of a text is written in."""

    NONE = 0
    CHINESE = 1
    LATIN = 2
    MIXED = 3
    OTHER = 4


# What programs write for "nothing here"; "none" and "无" may be true answers, Python's None is not.
_EMPTY = re.compile(r"[\W_]*|(?i:nan|null|n/?a|undefined|<na>|tbd|todo)[.。]?|None")
_BOILERPLATE = re.compile(
    r"(?i:\bas an? (?:AI|artificial intelligence|large language|language) (?:language )?(?:model|assistant)?\b"
    r"|\bI(?:'m| am) (?:just |only )?an? (?:AI|language model)\b"
    r"|\b(?:I'm|I am) sorry,? but I\b|\bI apologi[sz]e,? but\b"
    r"|\bI (?:cannot|can't|am unable to|am not able to) (?:see|view|provide|assist|fulfil|process|analy[sz]e)\b"
    r"|\b(?:certainly|sure)[!,] here(?:'s| is| are)\b|\bhere is the (?:translation|translated|revised|rewritten)\b"
    r"|\bplease provide (?:me with )?(?:the|an|more)\b.{0,40}\b(?:image|text|report|sentence)\b"
    r"|\b(?:regenerate response|chatgpt|openai)\b)"
    r"|作为一?[个名款]?(?:AI|人工智能|大?型?语言模型|机器人|智能助手)|我(?:只)?是一?[个名款]?(?:AI|人工智能|语言模型)"
    r"|(?:抱歉|对不起)[,，]?\s*(?:但|但是)?我(?:无法|不能|没有)|我(?:无法|不能)(?:查看|看到|提供|处理|打开)(?:图|影|照)"
    r"|以下是(?:翻译|译文|润色|改写)|请提供(?:需要|您|更多|要翻译)"
)
_UNRESOLVED = re.compile(
    r"(?<![A-Za-z0-9])[Xx]{3,}(?![A-Za-z0-9])|_{3,}|\[\*\*.*?\*\*\]"
    r"|\[\s*(?:UNK|MASK|PAD|NAME|DATE|INSERT\b[^]]*|YOUR [^]]*)\s*\]"
    r"|</?(?:unk|pad|mask|image|img|eop|sop|ImageHere|img_context)>|<\|[^|<>]*\|>|\{\{?\s*\w+\s*\}\}?|\$\{\w+\}"
    r"|\blorem ipsum\b|\b(?:TODO|FIXME|TBD)\b"
)
_GARBLED = re.compile(
    r"\ufffd|锟斤拷|烫烫烫|&(?:amp|lt|gt|quot|apos|nbsp|#\d+);|Ã[\x80-\xbf]|â€|[\x00-\x08\x0b\x0c\x0e-\x1f]"
)

# What decoding drops or turns into blanks.
_DETACHED = re.compile(r"[ \u200b\u200c\ufeff][.,?!]| n't| '(?:m|s|ve|re|\s)|[\u061c\u200b\u200c\u200e\u200f\ufeff]")

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]{2,}")
_OTHER_SCRIPT = re.compile(r"[\u0370-\u1fff\u3040-\u30ff\uac00-\ud7af]")


def marks_of(answer: str) -> Mark:
    """Find text that does not belong in an answer."""
    marks = Mark(0)
    if _EMPTY.fullmatch(answer.strip()):
        return Mark.EMPTY
    if _BOILERPLATE.search(answer):
        marks |= Mark.BOILERPLATE
    if _UNRESOLVED.search(answer):
        marks |= Mark.UNRESOLVED
    if _GARBLED.search(answer):
        marks |= Mark.GARBLED
    if _DETACHED.search(answer):
        marks |= Mark.DETACHED
    return marks


def unresolved_in(question: str) -> bool:
    """Whether a question holds a token that a template should have replaced, such as `<image>` or `{name}`."""
    return _UNRESOLVED.search(question) is not None or _GARBLED.search(question) is not None


def evidence(text: str) -> str:
    """The passage that made `marks_of` or `unresolved_in` object, with a little of what stands around it."""
    match = _BOILERPLATE.search(text) or _UNRESOLVED.search(text) or _GARBLED.search(text)
    if match is None or len(text) <= 100:
        return text
    begin, end = max(0, match.start() - 40), min(len(text), match.end() + 40)
    return f"{'…' if begin else ''}{text[begin:end]}{'…' if end < len(text) else ''}"


def language_of(text: str) -> Script:
    """Infer a text's language from its script, where a Latin word counts as two Chinese characters."""
    han, latin, other = (len(pattern.findall(text)) for pattern in (_HAN, _LATIN_WORD, _OTHER_SCRIPT))
    total = han + 2 * latin + other
    if total == 0:
        return Script.NONE
    if other > total / 3:
        return Script.OTHER
    share = han / (han + 2 * latin)
    return Script.CHINESE if share >= 0.6 else Script.LATIN if share <= 0.1 else Script.MIXED


def is_sentence(text: str) -> bool:
    """Whether a text has words enough for its language to be a matter of choice, unlike a name or a sign's wording."""
    return len(_HAN.findall(text)) >= 6 or len(_LATIN_WORD.findall(text)) >= 4


def normalise(text: str) -> str:
    """Bring wordings that mean the same to one: width, case, white space and outer punctuation do not count."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.strip(" .。!！?？:：,，;；") or folded
