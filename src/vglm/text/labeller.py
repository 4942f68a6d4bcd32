# ruff: noqa: E501 - long patterns stay on one line
"""Label chest radiograph reports with the 14 classes of CheXpert, in English and Chinese, by rules.

```
label_report("Heart size normal. Small left pleural effusion, possible pneumonia. No pneumothorax.")
    {"Cardiomegaly": "negative", "Pleural Effusion": "positive", "Pneumonia": "uncertain", "Pneumothorax": "negative"}
label_report("心影增大，双肺未见实变，右侧胸腔积液可能。")
    {"Cardiomegaly": "positive", "Consolidation": "negative", "Pleural Effusion": "uncertain"}
```

The terms of each finding are in `finding_words`. This module decides what a sentence claims about it. A sentence is
split into clauses at "but" and similar words, a clause into the items between commas. A denial reaches forward to the
end of its item, and over the items of a list ("no A, B or C", "没有异常，如A或B"), or back from the verb ("A has been
removed", "A不明显"). A denied change ("no change in the effusion") means that the finding is present. For an organ the
size counts: "larger than normal" is large, "at the upper limits of normal" is uncertain.

A text that does not describe a chest is unreadable: it has no labels, and does not count as a normal study.

The order mention, denial, doubt is that of the CheXpert labeler, and the scopes are those of ConText. Neither program
is used: they read English only, and CheXpert's phrases with medspaCy's ConText find fewer mentions than these rules.

Source: Irvin et al. 2019, "CheXpert: a large chest radiograph dataset with uncertainty labels and expert comparison";
Harkema et al. 2009, "ConText: an algorithm for determining negation, experiencer, and temporal status".
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from vglm.text.finding_words import (
    CHINESE_LARGE,
    CHINESE_LIMIT,
    CHINESE_NORMAL,
    ENGLISH_LARGE,
    ENGLISH_LIGHT,
    ENGLISH_LIMIT,
    ENGLISH_NORMAL,
    NO_FINDING,
    ORGANS,
    SUPPORT_DEVICES,
    WORDS,
)
from vglm.text.normalisation import normalise

Certainty = Literal["positive", "negative", "uncertain"]

_RANK = {"positive": 2, "uncertain": 1, "negative": 0}

# --- patterns ---------------------------------------------------------------------------------------------------------
# Texts are in lower case with half-width signs. A Han character beside a Latin word is not part of it, hence ASCII.


def _lines(text: str) -> str:
    return "|".join(line.strip() for line in text.strip().splitlines())


def _english(pattern: str) -> str:
    """Whole words."""
    return rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])"


def _han(pattern: str) -> str:
    r"""`\\w` of Chinese stays within Han characters, whatever the flags."""
    return pattern.replace(r"\w", "[\u4e00-\u9fff]")


@cache
def _mentions() -> Mapping[str, re.Pattern[str]]:
    """What mentions each finding; these patterns are long and compiled when a report is read."""
    return {
        name: re.compile(f"{_english(_lines(words.english))}|{_han(_lines(words.chinese))}", re.ASCII)
        for name, words in WORDS.items()
    }


@cache
def _never() -> Mapping[str, re.Pattern[str]]:
    """What only looks like a mention."""
    chinese = re.compile(r"[^|]*[\u4e00-\u9fff][^|]*")
    return {
        name: re.compile(chinese.sub(lambda part: _han(part[0]), words.never), re.ASCII)
        for name, words in WORDS.items()
    }


@cache
def _any() -> re.Pattern[str]:
    return re.compile("|".join(pattern.pattern for pattern in _mentions().values()), re.ASCII)


_SENTENCE = re.compile(r"[。;!?\n]|\.(?!\d)")
_CLAUSE = re.compile(
    r"\b(?:but|however|although|though|while|whereas|yet|except(?: for)?|with the exception of|other than|apart from"
    r"|aside from|nevertheless)\b"
    r"|但是?|然而|(?<![因从进反时])而(?!且)|不过|尽管|虽然|(?<!排)除了|(?<=外),"
)
_NEW = (
    r"(?:the|there|this|it|a|an|mild\w*|small|minimal|moderate|tiny|trace|stable|bilateral|chronic|old|calcified|low|mildly"
    r"|degenerative|patchy|increased|prominent|normal|heart|cardiac|lungs?|scattered|persistent|unchanged|some|healed)"
)
"""How an item begins that is not part of a list of what is denied."""
_AND_NEW = re.compile(
    rf" (?:and|with|as well as) (?={_NEW}\b)(?!(?:\w+ )?(?:enlarged|prominent|widened|dilated|normal|unchanged|stable)(?:$|[ ,]))"
)
_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|had|shows?|showed|appears?|remains?|reveals?|demonstrates?|suggests?|indicat\w+|noted"
    r"|seen|present|observed|visible|consistent)\b"
)
_ENGLISH_LIST = re.compile(r"\s*(?:(?:or|nor|and/or|and|such as|including|like|e\.g|for example|specifically)\b)")
_CHINESE_LIST = re.compile(r"\s*(?:或者?|以及|及|和|与|如(?!果)|例如|比如|诸如|包括|特别是|尤其是)")
_CHINESE_CLAIM = re.compile("[有见为是示呈增]|出现|可能|考虑|少量|轻度|小")
"""What an item has that is not part of a list of what is denied."""
_NEUTRAL = re.compile(
    r"\b(?:focal|acute|large|significant|definite|suspicious|pleural|lung|pulmonary|airspace|signs?|of|evidence|or|and|any"
    r"|visible|obvious|overt|gross|displaced|rib|bony|active|airspace|parenchymal|new|other|areas?|in|the lungs|discrete"
    r"|confluent|lobar|typical|findings?)\b"
    r"|[\s/、的或和及与]|局灶性?|病灶性?|急性|明显|大量|大面积|肺部?|胸腔|胸膜|骨质?|异常|可疑|空隙|气隙|任何|慢性|活动性|迹象|证据|存在"
)
"""What may stand in a bare item of a list."""

_NO = re.compile(
    r"\b(?:no|not|without|denies|negative for|free (?:of|from)|clear of|absence of|lack of|lacks?|resolution of"
    r"|clearing of|resolved|removal of|neither|nor|never|(?:rules?|ruled|ruling) out|excludes?|excluded)\b|n't\b"
    r"|没有|未(?!来|知|必)|无(?!法|论|症状|力|气(?!胸)|创|名)|不(?:伴|存在|见|考虑|支持)|排除|否认|缺乏"
)
_NO_ENDS = re.compile(
    r"\b(?:there (?:is|are)|is present|are present)\b|仅|只有|却|并(?:有|见)|且有|同时有|(?<![未不有])可见|伴有"
)
_NO_BEHIND = re.compile(
    r"[^.]*?(?:\bno longer\b"
    r"|\bnot (?:\w+ ){0,3}?(?:seen|identified|present|visible|visuali\w+|noted|evident|appreciated|demonstrated|observed"
    r"|detected|found|apparent|shown)\b"
    r"|\b(?:is|are|was|were|has|have|had|been)(?: (?!not)\w+)? (?:resolved|cleared|removed|pulled|withdrawn|discontinued|excluded|ruled out|absent|gone"
    r"|disappeared)\b|\b(?:resolved|removed|absent|ruled out)\s*$|^ removal\b|\s*:\s*(?:none|no|absent|negative|nil)\b)",
    re.ASCII,
)
_NO_BEHIND_CHINESE = re.compile(
    r"[^,有见为是呈示但]{0,30}?(?:均|都|并|也|已经?|则|被|的(?:迹象|证据|征象|表现))*"
    r"(?:(?:未见|未)(?=$|明显|异常|显示|增|者|于|发现|看到|出现)|没有(?:被)?(?:发现|看到|观察到|显示|出现|增)|不明显|不存在"
    r"|消失|阴性|(?:已经?|完全|基本|全部|被)+(?:被)?(?:吸收|消散|消退|消失|拔除|拔出|取出|移除|去除|撤除|拆除|排出|排除|解决|切除|清除|治愈|痊愈|治好)|不一定|拆除"
    r"|:\s*(?:无|阴性|未见|没有))"
)
# A denied change says that the thing is there: "no change in the effusion". Of an organ it is the change that counts.
_SAME = re.compile(
    r"\b(?:no|without)\b(?: (?:significant|interval|appreciable|major|substantial|definite|obvious|marked|further|any|evidence"
    r"|of|acute|radiographic|clear|overall))* (?:(?:changes?|improvement|resolution|worsening|progression|clearing"
    r"|decrease|difference) (?:in|of)\b|(?:enlargement|increase) (?:in|of)\b"
    r"(?! (?:the |overall )*(?:heart|cardiac|cardiomed|mediast|hil)))"
    r"|(?:\bnot|n't)(?: \w+){0,2}? (?:changed|resolved|improved|worsened|progressed|cleared|decreased)\b"
    r"|(?:未见|未有|没有|未|无)(?:明显|显著|明确|任何)*(?:的)?"
    r"(?:变化|改变|吸收|好转|消散|消退|减少|缩小|加重|进展|增多|增加)"
    r"|(?<![心隔膈])(?<!心[影脏])(?<!纵隔影)(?:未见|没有|未|无)(?:明显|显著)?(?:增大|扩大)(?!的?[心纵])",
    re.ASCII,
)
_NOT_GONE = re.compile(
    r"\b(?:no|without)(?: \w+){0,2} (?:evidence|signs?|indication) that (?P<english>[^,;]*?)"
    r" (?:has|have|is|are|was|were)(?: \w+)? (?:resolved|cleared|disappeared|gone|removed)\b"
    r"|(?:没有|无|未见)(?:任何|明确)?(?:证据|迹象)(?:表明|显示|提示|证明)(?P<chinese>[^,]*?)(?:已经?|完全)*(?:消失|吸收|消退|消散|好转)",
    re.ASCII,
)
_NOT_EXCLUDED = re.compile(
    r"(?:can ?not|can't|could not|couldn't|not) (?:\w+ ){0,3}?(?:excluded?|ruled? out)"
    r"|(?:difficult|hard|impossible) to (?:exclude|rule out)|to (?:exclude|rule out)|(?:^|(?<=:)) *(?:please )?rule out"
    r"|(?:不(?:能|可)?|未(?:能)?|无法|难以)(?:完全)?(?:除外|排除)|待排除?|待查|待除外|以(?:排除|除外)|(?<!已)除外"
)
_NO_DENIAL = re.compile(r"\bnot only\b|\bno doubt\b|\bnot necessarily\b|\bwithout doubt\b|不仅|不但|毫无疑问|无疑")
_DOUBT_BEFORE = re.compile(
    r"\b(?:possibl[ey]|possibility|probabl[ey]|may|might|could|suspect\w*|suspicious|questionable|likely|equivocal"
    r"|suggest\w*|versus|vs|concern\w*|consider|borderline|presumed|potential\w*|represent\w*)\b"
    r"|可能|疑|考虑|倾向|或许|似|提示|边缘|潜在|临界|代表"
)
_DOUBT_BEHIND = re.compile(
    r"(?: \w+){0,3}? (?:possible|probable|suspected|likely|questionable|equivocal|indeterminate|versus|vs|borderline)\b"
    r"(?! (?:for|due|represent|reflect|relat))|[^考,]{0,6}(?:可能|待定|\?)"
)
_PAST = re.compile(
    r"\b(?:history of|risk (?:of|for)|prevent\w*|(?:monitor\w*|watch|evaluat\w+|assess\w*|check|look) for|if|in case of)\b[^,]*$|病史|如果|预防|既往\w{0,4}$"
)
_PAST_BEHIND = re.compile(r"(?:的)?(?:病史|史)")

_CLEAR_ANGLE = re.compile(
    r"\b(?:costophrenic|cp) \w+(?: (?:is|are|remain|appear|both))* (?:sharp|clear|normal|preserved|intact)\b"
    r"|\b(?:sharp|clear|normal)(?: \w+)? (?:costophrenic|cp)\b|肋膈[角沟窦][^,]{0,6}(?:锐利|清晰|清楚|正常)"
)
_DEFORMED = re.compile(r"deformit|变形|楔形|畸形|压缩性?改变|compression$")


# --- organs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _OrganPatterns:
    """Where a report says how large an organ is; groups `large`, `limit`, `normal` say what."""

    before: re.Pattern[str]
    behind: re.Pattern[str]
    chinese_before: re.Pattern[str]
    chinese: re.Pattern[str]
    nouns: re.Pattern[str]


def _organ_patterns(name: str) -> _OrganPatterns:
    organ = ORGANS[name]
    english, chinese = _english(_lines(organ.english)), f"(?:{_lines(organ.chinese)})"
    states = (
        rf"(?:(?P<limit>{ENGLISH_LIMIT})|(?P<normal>{ENGLISH_NORMAL}|no (?:\w+ )?(?:enlargement|cardiomegaly|widening)"
        rf"|no longer (?:enlarged|widened))|(?P<large>{ENGLISH_LARGE}))"
    )
    light = r"(?:of|the|in|size|sized|and|shaped?|mild\w*|moderate\w*|appearing|overall|contours?|to|patient's|a|cardiac|heart)"
    return _OrganPatterns(
        before=re.compile(rf"\b{states}\b(?: {light})*? {english}", re.ASCII),
        behind=re.compile(rf"{english}(?:,? (?:{ENGLISH_LIGHT}))*?,? {states}\b", re.ASCII),
        chinese_before=re.compile(rf"(?:(?P<large>{CHINESE_LARGE})|(?P<normal>正常))的?[大小尺寸]{{0,2}}的?{chinese}"),
        chinese=re.compile(
            rf"{chinese}(?P<gap>[^,]{{0,16}}?)(?:(?P<normal>(?:没有|无|不|未见?|未有|非)(?:明显|显著|任何|什么|见|发现|看到)*的?"
            rf"(?:增|扩|肥|肿|变|宽|突|饱|异常|大)|(?:{CHINESE_NORMAL})(?!(?:值|范围)?的?[上高]限))|(?P<limit>{CHINESE_LIMIT})"
            rf"|(?P<large>{CHINESE_LARGE}))(?P<not>(?:的(?:证据|迹象))?(?:并|也)?(?:不明显|未见|不存在))?"
        ),
        nouns=re.compile(_english(organ.nouns), re.ASCII),
    )


_ORGAN_PATTERNS = {name: _organ_patterns(name) for name in ORGANS}
_OTHER_ORGAN = re.compile(r"血管|动脉(?!型)|肺|胸膜|脊柱|椎|骨|主动脉弓|膈肌")

# --- whether a text speaks of a chest ---------------------------------------------------------------------------------

_SPEAKS = re.compile(
    r"lung|pulmon|chest|thora|heart|cardi|pleura|mediastin|diaphragm|\bhil(?:um|a|ar)\b|\bribs?\b|unremarkable"
    r"|\bnormal (?:study|exam|film|radiograph|x-ray)|abnormalit|acute|active disease|x-?ray|radiograph"
    r"|肺|胸|心[影脏肺胸]|膈|纵隔|肋|未见异常|病变|x线|x光|x射线|气管"
)
_REFUSES = re.compile(
    r"(?:cannot|can't|can not|unable to|not able to|could not|couldn't) (?:\w+ )?(?:view|see|interpret|analy[sz]e|access"
    r"|provide|assist|diagnose|describe|help|process)|as an? (?:ai|language)"
    r"|(?:无法|不能|没法)(?:\w{0,4})(?:查看|看到|看见|分析|提供|解读|诊断|处理|识别|访问|描述)|看不到|看不见|作为(?:一个)?(?:人工智能|语言模型|ai)"
)


# --- reading ----------------------------------------------------------------------------------------------------------


def label_report(report: str) -> dict[str, Certainty]:
    """Label the findings of a report.

    Args:
        report: English or Chinese text, or both.

    Returns:
        Finding -> "positive", "negative" or "uncertain"; a finding that is not spoken of is left out. Where clauses
        differ, positive wins over uncertain, and that over negative. "No Finding" is positive where no other class but
        the devices is positive or uncertain, and left out otherwise. A text that speaks of no chest at all (nothing, a
        refusal, "花。") has no labels.
    """
    return dict(_label(report))


@lru_cache(maxsize=20_000)
def _label(report: str) -> Mapping[str, Certainty]:
    """The same; several metrics and slices ask for the same report."""
    text = normalise(report).lower()
    certainties: dict[str, Certainty] = {}
    is_readable = False
    for sentence in _SENTENCE.split(text):
        if _REFUSES.search(sentence):
            continue
        is_readable = is_readable or _SPEAKS.search(sentence) is not None
        for clause in _CLAUSE.split(_plain(sentence)):
            for name, certainty in _read_clause(clause):
                if _RANK[certainty] >= _RANK[certainties.get(name, "negative")]:
                    certainties[name] = certainty
    is_abnormal = any(
        certainties.get(name) in ("positive", "uncertain") for name in (*WORDS, *ORGANS) if name != SUPPORT_DEVICES
    )
    if (certainties or is_readable) and not is_abnormal:
        certainties[NO_FINDING] = "positive"
    return certainties


def _plain(sentence: str) -> str:
    """A sentence with what sounds like a denial, and is none, in plain words; items that open again behind a comma."""
    sentence = _NOT_GONE.sub(lambda match: match["english"] or match["chinese"], sentence)
    sentence = _SAME.sub(" unchanged 如前", _NO_DENIAL.sub(" ", sentence))
    sentence = _NOT_EXCLUDED.sub(lambda match: "可能" if "\u4e00" <= match[0][-1] <= "\u9fff" else "possible", sentence)
    return _AND_NEW.sub(", ", sentence)


def _read_clause(clause: str) -> Iterator[tuple[str, Certainty]]:
    """What a clause says, item by item."""
    items = clause.split(",")
    goes_on = [index > 0 and _continues(items, index) for index in range(len(items))]
    is_denied = False  # by what precedes it, to the beginning of the list
    for index, item in enumerate(items):
        carried = is_denied and goes_on[index]
        rest = ",".join(items[index + 1 :])
        yield from (*_read_mentions(item, rest, carried), *_read_organs(item, carried))
        is_denied = _denied(item, carried)


def _continues(items: list[str], index: int) -> bool:
    """Whether an item is part of the list that the item before it began."""
    item = items[index]
    if _CHINESE_LIST.match(item) or _is_bare(item):
        return True
    if re.search("[\u4e00-\u9fff]", item):
        return "或" in item and _CHINESE_CLAIM.search(item) is None
    if re.match(rf"\s*(?:and )?{_NEW}\b", item):
        return False
    if _ENGLISH_LIST.match(item):
        return (
            not item.lstrip().startswith("and")
            or not _VERB.search(item)
            or _VERB.search(item, item.rfind(" ")) is not None
        )
    head = _VERB.split(item)[0]
    if re.search(r"\b(?:or|nor)\b", head):
        return True
    return not _VERB.search(item) and index + 1 < len(items) and _opens_list(items, index + 1)


def _opens_list(items: list[str], index: int) -> bool:
    """Whether an item, or one that a list leads to, ends it with "or" or "and"."""
    return _ENGLISH_LIST.match(items[index]) is not None or _continues(items, index)


def _is_bare(item: str) -> bool:
    """Whether an item holds only names of findings."""
    rest, count = _any().subn("", item)
    return count > 0 and not _NEUTRAL.sub("", rest).strip()


def _denied(before: str, carried: bool) -> bool:
    """Whether a denial before a position, in its item or carried into it, reaches the position."""
    ends = max((match.end() for match in _NO_ENDS.finditer(before)), default=0)
    return any(match.start() >= ends for match in _NO.finditer(before)) or (carried and not ends)


def _denied_behind(after: str, rest: str) -> bool:
    """Whether the verb behind a mention denies it, maybe over the items of a list."""
    if _NO_BEHIND_CHINESE.match(after):
        return True
    for text in (after, f"{after},{rest}"):
        if match := _NO_BEHIND.match(text):
            gap = re.split(r"\b(?:is|are|was|were|has|have|had|not|no longer|been)\b|:", match[0])[0]
            is_list = "," not in gap or re.search(r"\b(?:and|or|nor)\b", gap) is not None
            return is_list and _VERB.search(gap) is None and not re.search(rf"(?:,|\band) {_NEW}\b", gap)
    return False


def _read_mentions(item: str, rest: str, carried: bool) -> Iterator[tuple[str, Certainty]]:
    """The labels of the findings that an item names."""
    if _CLEAR_ANGLE.search(item):
        yield "Pleural Effusion", "negative"
    for name, pattern in _mentions().items():
        text = _never()[name].sub(lambda match: "_" * len(match[0]), item)
        for mention in pattern.finditer(text):
            if certainty := _judge(item, mention, rest, carried):
                yield name, certainty
    for name, organ in _ORGAN_PATTERNS.items():
        for mention in organ.nouns.finditer(item):
            if certainty := _judge(item, mention, rest, carried):
                yield name, certainty


def _judge(item: str, mention: re.Match[str], rest: str, carried: bool) -> Certainty | None:
    """The label of one mention; None if it is in the past."""
    before, after = item[: mention.start()], item[mention.end() :]
    if _PAST.search(before) or _PAST_BEHIND.match(after):
        return None
    if _denied(before, carried) or _denied_behind(after, rest):
        return "negative"
    if _DEFORMED.search(mention[0]) or _DOUBT_BEFORE.search(before) or _DOUBT_BEHIND.match(after):
        return "uncertain"
    return "positive"


def _read_organs(item: str, carried: bool) -> Iterator[tuple[str, Certainty]]:
    """The labels from the sizes of organs in an item."""
    for name, organ in _ORGAN_PATTERNS.items():
        for pattern in (organ.before, organ.behind, organ.chinese_before, organ.chinese):
            for match in pattern.finditer(item):
                if certainty := _judge_organ(item, match, carried):
                    yield name, certainty


def _judge_organ(item: str, match: re.Match[str], carried: bool) -> Certainty | None:
    """What one statement of an organ's size says; None where it is another organ's."""
    groups = match.groupdict()
    if groups["normal"] is not None or groups.get("not"):
        return "negative"
    if _OTHER_ORGAN.search(groups.get("gap") or ""):
        return None
    if _denied(item[: match.start()], carried):
        return "negative"
    is_doubted = groups.get("limit") is not None or _DOUBT_BEFORE.search(item[: match.end()]) is not None
    return "uncertain" if is_doubted else "positive"
