"""Which label, option, yes or no an answer names; what names none, or several, is "unparsed".

```
parse_label("It is an RR Lyrae star.", ("rr lyrae", "cepheid")) == "rr lyrae"
parse_label("either a cepheid or an rr lyrae", …) is None
parse_label("not a cepheid", …) is None
parse_label("不是，图中没有猫。", ("是。", "否。")) == "否。"
parse_label("答案是B，因为A是红色的", ("A", "B", "C", "D")) == "B"
parse_choice("(B) a blue square", ("a red circle", "a blue square")) == "a blue square"
parse_choice("It is a dog.", ("A", "B"), ("a cat", "a dog")) == "B"
```
"""

import re
import unicodedata
from collections.abc import Sequence
from string import ascii_uppercase

from vglm.evaluation.score.metrics.text import simplify
from vglm.text.normalisation import normalise

# --- names of classes -------------------------------------------------------------------------------------------------
# Patterns are matched against texts after `normalise` (half-width signs), all but those of letters in lower case too.

_CLAUSE_ENDS = re.compile(r"[,.;:!?，。；：！？、\n]|\b(?:but|and|it is|it's)\b|而是|但是?")
_NO_DENIAL = re.compile(
    r"\b(?:no doubt|without (?:a |any )?doubt|not only|not just|no question|no problem|no matter)\b"
    r"|不仅仅?|不但|不只是?|不错|不过|不管|对不起|没错|没关系|没问题|毫无疑问|无疑|非常"
)
"""What sounds like a negation and is none."""
_DENIAL = re.compile(
    r"(?:\b(?:not|no|never|neither|nor|non|without|cannot|rather than|instead of|except|negative for|absence of|"
    r"free of)\b|n['’]t\b)(?:[^\w]+\w+){0,4}[^\w]*$"
    r"|(?:不(?:太|大|可能|应该?|会|能|像|再)*(?:是|为|属于|选|含|像|存在|有)?|并非|而非|绝非|非|没有?|无|未见?|除了?)[^是]{0,6}$"
)
"""A negation, and what may stand between it and the label it denies."""


def _is_denied(before: str) -> bool:
    """Whether what stands before a label, in lower case, denies it."""
    clause = _CLAUSE_ENDS.split(_NO_DENIAL.sub(lambda match: "_" * len(match[0]), before))[-1]
    return _DENIAL.search(clause) is not None


def parse_label(text: str, labels: Sequence[str]) -> str | None:
    """Find the one label that an answer names.

    Args:
        text: The answer.
        labels: The closed set. Case, punctuation and full-width signs do not count.

    Returns:
        The label that the answer equals. Else, of a pair like yes and no or 是 and 否, the one that the sentence says;
        of capital letters the option that it chooses, as "(A)", "A. a red circle", "答案是A" do; of other labels the
        only one it contains and does not deny, where a label inside a longer one that is there too does not count
        ("nova" in "supernova" never does, "dwarf nova" hides "nova"; "not a nova" names none). Else None.
    """
    answer = simplify(text)
    if exact := [label for label in labels if simplify(label) == answer]:
        return exact[0]
    if pair := _yes_and_no(labels):
        is_yes = read_yes_no(text)
        if is_yes is not None or _is_unsure(text) or any("是" in label for label in labels):
            return None if is_yes is None else pair[0 if is_yes else 1]
    if labels and set(labels) <= set(ascii_uppercase):
        return _read_letter(text, labels) or _lone_letter(text, labels)
    names = _named(text, labels)
    return names[0] if len(names) == 1 else None


def parse_choice(text: str, choices: Sequence[str], meanings: Sequence[str] = ()) -> str | None:
    """Find which of a question's own choices an answer takes: by its name, as `parse_label`, or by its letter.

    Args:
        text: The answer.
        choices: In the order in which the question offers them: the first is option A, unless each begins with a letter
            of its own, as "B. a red circle" does.
        meanings: Where the choices are letters, what each stands for, different texts; an answer may name them instead.

    Returns:
        The choice; None where there is none, or where name and letter are of different ones.
    """
    if set(choices) <= set(ascii_uppercase) and len(set(meanings)) == len(choices):
        meaning = parse_label(text, meanings)
        named = None if meaning is None else choices[list(meanings).index(meaning)]
        if simplify(text) in map(simplify, meanings):
            return named
        letter = parse_label(text, choices)
        return letter or named if None in (letter, named) or letter == named else None
    name = parse_label(text, choices)
    if set(choices) <= set(ascii_uppercase) or simplify(text) in map(simplify, choices):
        return name
    given = [_OPTION.match(normalise(choice)) for choice in choices]
    letters = [match[1].upper() for match in given if match]
    if len(set(letters)) < len(choices):
        letters = list(ascii_uppercase[: len(choices)])
    letter = _read_letter(text, letters)
    chosen = None if letter is None else choices[letters.index(letter)]
    return name or chosen if name is None or chosen in (None, name) else None


def _named(text: str, labels: Sequence[str]) -> list[str]:
    """The labels that a text contains and does not deny; not where they are inside longer ones."""
    lower = normalise(text).lower()
    flat = "".join(" " if unicodedata.category(each)[0] in "PSZ" else each for each in lower)
    found: dict[str, list[tuple[int, int]]] = {}
    for label in labels:
        words = simplify(label).split()
        if words and words[0] in flat:
            pattern = rf"{_edge(words[0][0])}{' +'.join(map(re.escape, words))}{_edge(words[-1][-1])}"
            found[label] = [match.span() for match in re.finditer(pattern, flat)]
    spans = {span for each in found.values() for span in each}
    hidden = {one for one in spans for two in spans if one != two and two[0] <= one[0] and one[1] <= two[1]}
    said = {label: [start for start, end in each if (start, end) not in hidden] for label, each in found.items()}
    return [label for label, starts in said.items() if not all(_is_denied(lower[:start]) for start in starts)]


def _edge(character: str) -> str:
    """A word boundary beside a character of a script with blanks between words, else nothing."""
    return r"\b" if character.isascii() else ""


# --- letters of options -----------------------------------------------------------------------------------------------

_OPTION = re.compile(r"""[\s"'*(\[<【「]*([A-Za-z])\s*[)\]>】」.:、。*]+(?![A-Za-z]\.)""")
"""A letter with the sign of an option behind it, where a text begins."""
_ALONE = r"(?<![A-Za-z0-9'’.\-])([A-Z])(?![A-Za-z0-9'’]|-(?!type|class))"
_CHOSEN = re.compile(
    rf"""(?:答案|选项|选择|选|(?i:\banswer|\boption|\bchoice|\bchoose|\bpick|\bselect))[^.!?。！？；\n]{{0,40}}?{_ALONE}"""
    rf"|{_ALONE}\s*(?:选项|项|是?(?:正确|对)的?)"
)
_WORD = re.compile(r"(?<=[AI])\s+(?!(?:and|or|nor|but|because|since|as|is|was|for|with|in)\b)[A-Za-z]")
"""What follows a capital letter that is a word: "A red circle", "I see"."""
_NEXT = re.compile(rf"""[\s,，、/&+()\[\]*"']*(?:and|or|和|或|与|跟)?[\s()\[\]*"']*{_ALONE}""")
_LAST = re.compile(rf"""{_ALONE}[\s,，、/&+()\[\]*"']*(?:and|or|和|或|与|跟)?[\s()\[\]*"']*$""")
"""Another letter right behind one, or right before it."""


def _read_letter(text: str, letters: Sequence[str]) -> str | None:
    """The option that is chosen by its letter: all of the answer, at its beginning, or behind a word like "answer"."""
    text = normalise(text)
    if match := re.fullmatch(r"[\W_]*([A-Za-z])[\W_]*", text):
        return match[1].upper() if match[1].upper() in letters else None
    if (match := _OPTION.match(text)) and match[1].upper() in letters:
        rest = text[match.end() :]
        following = _NEXT.match(rest)
        is_several = following and following[1] in letters and not _WORD.match(rest, following.end())
        return None if is_several else match[1].upper()
    found = []
    for match in _CHOSEN.finditer(text):
        place = 1 if match[1] else 2
        if match[place] in letters and not _is_word(text, match, place) and not _is_denied_letter(text, match, place):
            found.append(match[place])
            beside = _NEXT.match(text, match.end()), _LAST.search(text[: match.start(place)])
            found += [each[1] for each in beside if each and each[1] in letters and not _WORD.match(text, each.end())]
    return found[0] if len(set(found)) == 1 else None


def _lone_letter(text: str, letters: Sequence[str]) -> str | None:
    """The only letter that stands by itself, is no word and is not denied."""
    text = normalise(text)
    found = {
        match[1]
        for match in re.finditer(_ALONE, text)
        if match[1] in letters and not _is_word(text, match, 1) and not _is_denied_letter(text, match, 1)
    }
    return found.pop() if len(found) == 1 else None


def _is_word(text: str, match: re.Match[str], place: int) -> bool:
    is_after_article = re.search(r"(?i)\b(?:an?|the|type|class|option|choice|letter)\s+$", text[: match.start(place)])
    return _WORD.match(text, match.end(place)) is not None and is_after_article is None


def _is_denied_letter(text: str, match: re.Match[str], place: int) -> bool:
    return _is_denied(text[: match.start(place)].lower())


# --- yes and no -------------------------------------------------------------------------------------------------------

_YES = re.compile(
    r"(?:(?:oh|well|嗯|啊)\s*)?(?:yes|yeah|yep|yup|true|correct|right|that(?:'s| is) (?:right|correct|true)|certainly|"
    r"definitely|indeed|of course|sure|是的?|是[啊呀吧]|对的?|对[啊呀]|有的?|存在|正确的?|没错|会的?|能的?|可以的?|"
    r"确实(?:是|有|如此)?|当然(?:是|有)?|肯定(?:是|有)?|真的?|属于)"
    r"(?: it (?:is|does)| they (?:are|do)| there (?:is|are))?"
)
_NO = re.compile(
    r"(?:(?:oh|well|嗯|啊)\s*)?(?:no|nope|nah|false|incorrect|wrong|not really|not at all|never|of course not|"
    r"(?:definitely|certainly) not|否|不|不是的?|没有?的?|不对|不存在|错的?|错误的?|错了|不正确|不会的?|不能|不可以|"
    r"不行|无|假的?|(?:并|当然|肯定|应该)?(?:不是|没有)的?|不属于)(?: it (?:is|does)n['’]t| they (?:are|do)n['’]t)?"
)
"""A clause that is nothing but an answer."""
_UNSURE = re.compile(
    r"\bnot (?:\w+ )?(?:sure|certain|clear|known|possible to)\b|\b(?:unsure|uncertain|unclear|unknown|no idea)\b"
    r"|\b(?:can|could)(?:not|n['’]t| not) (?:be )?(?:tell|say|determine|see|know|answer|identif|judge|sure)"
    r"|\b(?:do|does)(?:n['’]t| not) know\b|\b(?:hard|impossible|difficult) to\b"
    r"|不知道|不清楚|不确定|不好说|说不准|无法|看不清|看不出|难以|不能(?:确定|判断|看出)|未知"
)
_QUESTION = re.compile(
    r"\b(?:yes or no|no or yes|or not|if not)\b"
    r"|是不是|是否|有没有|对不对|会不会|能不能|可不可以|是(?:还是|或者?)(?:不是|否)"
)
"""What names both and says neither."""
_ANSWER_IS = re.compile(
    r"""(?:答案|回答|answer)[^.!?。！？\n]{0,20}?(?:\bis\b|[是为:])[\s"'(“「]*(是的?|对|有|yes|true|否|不是?|错|没有|no|false)"""
    r"""[\s"'”」).。!！,，]*(?:$|(?<=[.。!！,，]))"""
)
_FIRST_WORD = re.compile(r"[\W_]*(yes|yeah|yep|no|nope)\b(?!\W+(?:or|and|idea|doubt|question|problem|matter|one)\b)")
_SAYS_YES = re.compile(r"\b(?:yes|yeah|yep)\b|\b(?:is|'s|are) (?:true|correct)\b")
_ENDS_IN_YES = re.compile(r"(?<![不非否])(?:是的?|对的|正确的?|真的|没错|存在)[吧啊呀]?\s*$")
_SAYS_NO = re.compile(
    r"\b(?:no|nope|not|never|none|nothing|nobody|cannot)\b|n['’]t\b|\b(?:is|'s|are) (?:false|incorrect|wrong)\b"
    r"|不|没|并非|未见|否(?![则定认])|错误|错的|无\s*$"
)


def _yes_and_no(labels: Sequence[str]) -> tuple[str, str] | None:
    """(yes, no) of two labels that mean this."""
    if len(labels) != 2:
        return None
    meanings = [
        (_YES.fullmatch(simplify(label)) is not None, _NO.fullmatch(simplify(label)) is not None) for label in labels
    ]
    if meanings == [(True, False), (False, True)]:
        return labels[0], labels[1]
    return (labels[1], labels[0]) if meanings == [(False, True), (True, False)] else None


def _is_unsure(text: str) -> bool:
    return _UNSURE.search(normalise(text).lower()) is not None


def read_yes_no(text: str) -> bool | None:
    """Whether an answer in English or Chinese says yes.

    A first clause that says nothing but yes or no decides ("Yes, there is no dog."), then "the answer is …"; else the
    whole text must hold words of one sort only. A statement that merely repeats what was asked ("It is a dog.") is
    neither, for it could repeat something else.

    Args:
        text: The answer.

    Returns:
        True or False; None where the text says neither, both, or that it cannot tell.
    """
    lower = normalise(text).lower()
    clauses = [each.strip(" \"'“”「」()*_~-") for each in re.split(r"[,.;:!?，。；：！？、\n]", lower)]
    whole = [True if _YES.fullmatch(each) else False if _NO.fullmatch(each) else None for each in clauses if each]
    if whole and whole[0] is not None:
        return None if (not whole[0]) in whole[1:] else whole[0]
    if answer := _ANSWER_IS.search(lower):
        return _YES.fullmatch(answer[1]) is not None
    if first := _FIRST_WORD.match(lower):
        opposite = r"\byes\b" if first[1].startswith("n") else r"\bno\b(?=\W*$)"
        if not re.search(opposite, lower[first.end() :]):
            return not first[1].startswith("n")
    if _is_unsure(lower):
        return None
    plain = _QUESTION.sub("_", _NO_DENIAL.sub(lambda match: "没错" if match[0] == "没错" else "_", lower))
    says_no = _SAYS_NO.search(plain.replace("没错", "_")) is not None
    clauses = re.split(r"[,.;:!?，。；：！？、\n]", plain)
    says_yes = _SAYS_YES.search(plain) is not None or any(_ENDS_IN_YES.search(each) for each in clauses)
    return None if says_yes == says_no else says_yes
