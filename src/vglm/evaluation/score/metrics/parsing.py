# ruff: noqa: E501 - long patterns stay on one line
"""Which label, option, yes or no an answer names; what names none, or several, is "unparsed".

```
parse_label("It is an RR Lyrae star.", ("rr lyrae", "cepheid")) == "rr lyrae"
parse_label("either a cepheid or an rr lyrae", …) is None
parse_label("not a cepheid", …) is None
parse_label("不是，图中没有猫。", ("是。", "否。")) == "否。"
parse_label("答案是B，因为A是红色的", ("A", "B", "C", "D")) == "B"
parse_label("A sandy beach.", {"沙滩": ["beach"], "草地": ["grass", "meadow"]}) == "沙滩"
parse_choice("(B) a blue square", ("a red circle", "a blue square")) == "a blue square"
parse_choice("It is a dog.", ("A", "B"), ("a cat", "a dog")) == "B"
```
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from string import ascii_uppercase

from vglm.errors import ConfigError
from vglm.evaluation.score.metrics.text import END_OF_WORD, as_words, simplify
from vglm.text.normalisation import normalise

Labels = Sequence[str] | Mapping[str, Sequence[str]]
"""A closed set of labels; as a mapping, each with the other words that mean it."""


def label_words(labels: Labels) -> dict[str, str]:
    """Each word for a label, the label itself among them -> the label.

    Raises:
        ConfigError: One word means two labels.
    """
    return dict(_meanings(labels))


def _meanings(labels: Labels) -> tuple[tuple[str, str], ...]:
    """The same as (word, label)."""
    aliases = labels.items() if isinstance(labels, Mapping) else ((label, ()) for label in labels)
    return _label_words(tuple((label, tuple(others)) for label, others in aliases), isinstance(labels, Mapping))


@lru_cache(maxsize=1 << 12)  # applied to every answer
def _label_words(aliases: tuple[tuple[str, tuple[str, ...]], ...], are_named: bool) -> tuple[tuple[str, str], ...]:
    """The same, of labels with their other words."""
    words: dict[str, str] = {}
    owners: dict[str, str] = {}
    for label, others in aliases:
        for word in (label, *others):
            if owners.setdefault(simplify(word), label) != label and are_named:
                raise ConfigError(
                    f"metrics.labels: {word!r} means both {owners[simplify(word)]!r} and {label!r}. Give each word to"
                    " one label."
                )
            words.setdefault(word, label)
    return tuple(words.items())


# --- names of classes -------------------------------------------------------------------------------------------------
# Patterns are matched against texts after `normalise` (half-width signs), all but those of letters in lower case too.

_CLAUSE_ENDS = re.compile(r"[,.;:!?，。；：！？、\n]|\b(?:but|and|it is|it's)\b|而是|但是?")
_NO_DENIAL = re.compile(
    r"\b(?:no doubt|without (?:a |any )?doubt|not only|not just|no question|no problem|no matter|nothing (?:but|except|other than))\b"
    r"|不仅仅?|不但|不只是?|不错|不过|不管|对不起|没错|没有错|没关系|没有?问题|毫无疑问|无疑|非常"
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


def parse_label(text: str, labels: Labels) -> str | None:
    """Find the one label that an answer names.

    Args:
        text: The answer.
        labels: The closed set, with other words for each label where it is a mapping. Case, punctuation and full-width
            signs do not count.

    Returns:
        The label that the answer equals. Else, of a pair like yes and no or 是 and 否, the one that the sentence says;
        of capital letters the option that it chooses, as "(A)", "A. a red circle", "答案是A" do; of other labels the
        only one it contains and does not deny, where a label inside a longer one that is there too does not count
        ("nova" in "supernova" never does, "dwarf nova" hides "nova"; "not a nova" names none). Else None.
    """
    return _parse_label(text, tuple(labels), _meanings(labels))


@lru_cache(maxsize=1 << 16)  # used by all metrics, arms and slices
def _parse_label(text: str, names: Sequence[str], meanings: Sequence[tuple[str, str]]) -> str | None:
    """The same, of labels and (word, label)."""
    words, answer = dict(meanings), simplify(text)
    if exact := [label for word, label in words.items() if simplify(word) == answer]:
        return exact[0]
    if is_refusal(text):
        return None
    if pair := _yes_and_no(names):
        is_yes = read_yes_no(text)
        if is_yes is not None or _is_unsure(text) or any("是" in label for label in names):
            return None if is_yes is None else pair[0 if is_yes else 1]
    if names and set(words) <= set(ascii_uppercase):
        return _read_letter(text, names) or _lone_letter(text, names)
    labels = {words[word] for word in _named(text, list(words))}
    return labels.pop() if len(labels) == 1 else None


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
    options = [_OPTION.match(normalise(choice)) for choice in choices]
    letters = [match[1].upper() for match in options if match]
    if len(set(letters)) < len(choices):
        letters = list(ascii_uppercase[: len(choices)])
    letter = _read_letter(text, letters)
    chosen = None if letter is None else choices[letters.index(letter)]
    return name or chosen if name is None or chosen in (None, name) else None


_ARTICLE = re.compile(r"^(?:an?|the) (?=\w)")
_INTERJECTION = re.compile(r"^\W*right[,!]\s*(?=\w)")
"""A "right" that agrees, and is no side."""
_OPPOSITES = (
    ("normal", "abnormal"), ("benign", "malignant"), ("positive", "negative"), ("正常", "异常"), ("正常", "不正常"),
    ("良性", "恶性"), ("阳性", "阴性"),
)  # fmt: skip


def _named(text: str, labels: Sequence[str]) -> list[str]:
    """The labels that a text contains and does not deny; not where they are inside longer ones."""
    lower = _turned(normalise(text).lower(), labels)
    flat = "".join(" " if unicodedata.category(character)[0] in "PSZ" else character for character in lower)
    words = {label: simplify(label) for label in labels}
    spans_of: dict[str, list[tuple[int, int]]] = {}
    for label, word in words.items():
        if word and word.split()[-1] in flat:
            bare = _ARTICLE.sub("", word) if _ARTICLE.match(normalise(label).lower()) else word
            spans_of[label] = [match.span() for match in re.finditer(_in_any_number(bare, words.values()), flat)]
    spans = {span for own in spans_of.values() for span in own}
    hidden = {one for one in spans for two in spans if one != two and two[0] <= one[0] and one[1] <= two[1]}
    shown = {label: [start for start, end in value if (start, end) not in hidden] for label, value in spans_of.items()}
    named = [label for label, starts in shown.items() if not all(_is_denied(lower[:start]) for start in starts)]
    if len(named) > 1 and _INTERJECTION.match(lower):
        return _named(_INTERJECTION.sub("", lower), labels)
    return named


def _in_any_number(word: str, words: Iterable[str]) -> str:
    """The pattern of a simplified label, in the plural too unless that is a label of its own."""
    if len(word) < 3 or not (word.isascii() and word[-1].isalpha()) or {f"{word}s", f"{word}es"} & set(words):
        return as_words(word)
    return as_words(word).removesuffix(END_OF_WORD) + f"(?:e?s)?{END_OF_WORD}"


def _turned(text: str, labels: Sequence[str]) -> str:
    """A text in which the denial of a label that has an opposite among the labels names the opposite."""
    for pair in _OPPOSITES:
        if not set(pair) <= {simplify(label) for label in labels}:
            continue
        for one, other in (pair, pair[::-1]):
            denial = (
                rf"\b(?:not|non)[ -]{one}\b"
                if one.isascii()
                else f"(?:不|非|未见(?:明显)?|无(?:明显)?|没有(?:明显)?){one}"
            )
            if not any(re.search(denial, label) for label in labels):
                text = re.sub(denial, other, text)
    return text


# --- letters of options -----------------------------------------------------------------------------------------------

_OPTION = re.compile(r"""[\s"'*(\[<【「]*([A-Za-z])\s*[)\]>】」.:、。*]+(?![A-Za-z]\.)""")
"""A letter with the sign of an option behind it, where a text begins."""
_ALONE = r"(?<![A-Za-z0-9'’.\-])([A-Z])(?![A-Za-z0-9'’]|-(?!type|class))"
_CHOSEN = re.compile(
    rf"""(?:答案|选项|选择|选|(?i:\banswer|\boption|\bchoice|\bchoose|\bpick|\bselect))[^.!?。！？；\n]{{0,40}}?{_ALONE}"""
    rf"|{_ALONE}\s*(?:选项|项|是?(?:正确|对)的?)"
)
_ANSWER = re.compile(
    r"""(?i)[\W_]*(?:the )?(?:correct |right |best )?(?:answer|option|choice|答案|选项)\s*(?:is|是|为|[:：])\s*["'(\[]?([a-z])[\W_]*"""
)
"""A text that is only a letter, in either case, after such a word."""
_WRONG = re.compile(
    r"(?:\s*(?:,|and|or|nor|和|与|及|、)\s*(?:option )?[A-Z]\b)*\W*(?:is|are|was|seems?|是)?\s*(?:not\b|n['’]t\b|wrong|incorrect|false|excluded|ruled out|错|不对|不正确|不是|不符合|排除)",
    re.IGNORECASE,
)
"""What denies an option behind its letter."""
_MARK = re.compile(r"(?<![A-Za-z0-9])\(?([A-Z])\s*[).:、\]](?!\w\.)")
_WORD = re.compile(r"(?<=[AI])\s+(?!(?:and|or|nor|but|because|since|as|is|was|for|with|in)\b)[A-Za-z]")
"""What follows a capital letter that is a word: "A red circle", "I see"."""
_NEXT = re.compile(rf"""[\s,，、/&+()\[\]*"']*(?:and|or|和|或|与|跟)?[\s()\[\]*"']*{_ALONE}""")
_LAST = re.compile(rf"""{_ALONE}[\s,，、/&+()\[\]*"']*(?:and|or|和|或|与|跟)?[\s()\[\]*"']*$""")
"""Another letter right behind one, or right before it."""


def _read_letter(text: str, letters: Sequence[str]) -> str | None:
    """The option that is chosen by its letter: all of the answer, at its beginning, or behind a word like "answer".

    An answer that marks several options repeats the question, and chooses only behind such a word.
    """
    text = normalise(text)
    if match := re.fullmatch(r"[\W_]*([A-Za-z])[\W_]*", text):
        return match[1].upper() if match[1].upper() in letters else None
    if match := _ANSWER.fullmatch(text):
        return match[1].upper() if match[1].upper() in letters else None
    is_echo = len({match[1] for match in _MARK.finditer(text)} & set(letters)) > 1
    if not is_echo and (match := _OPTION.match(text)) and match[1].upper() in letters:
        rest = text[match.end() :]
        following = _NEXT.match(rest)
        is_several = following and following[1] in letters and not _WORD.match(rest, following.end())
        return None if is_several else match[1].upper()
    chosen = []
    for match in _CHOSEN.finditer(text):
        if is_echo and match[0].lower().startswith(("选项", "option")):
            continue
        group = 1 if match[1] else 2
        if match[group] in letters and not _is_word(text, match, group) and not _is_denied_letter(text, match, group):
            chosen.append(match[group])
            beside = _NEXT.match(text, match.end()), _LAST.search(text[: match.start(group)])
            chosen += [
                match_beside[1]
                for match_beside in beside
                if match_beside and match_beside[1] in letters and not _WORD.match(text, match_beside.end())
            ]
    return chosen[0] if len(set(chosen)) == 1 else None


def _lone_letter(text: str, letters: Sequence[str]) -> str | None:
    """The only letter that stands by itself, is not a word and is not denied."""
    text = normalise(text)
    lone = {
        match[1]
        for match in re.finditer(_ALONE, text)
        if match[1] in letters and not _is_word(text, match, 1) and not _is_denied_letter(text, match, 1)
    }
    return lone.pop() if len(lone) == 1 else None


def _is_word(text: str, match: re.Match[str], group: int) -> bool:
    is_after_article = re.search(r"(?i)\b(?:an?|the|type|class|option|choice|letter)\s+$", text[: match.start(group)])
    return _WORD.match(text, match.end(group)) is not None and is_after_article is None


def _is_denied_letter(text: str, match: re.Match[str], group: int) -> bool:
    return _is_denied(text[: match.start(group)].lower()) or _WRONG.match(text, match.end(group)) is not None


# --- yes and no -------------------------------------------------------------------------------------------------------

_YES = re.compile(
    r"(?:(?:oh|well|嗯|啊)\s*)?(?:yes|yeah|yep|yup|true|correct|right|that(?:'s| is) (?:right|correct|true)|certainly|"
    r"definitely|absolutely|indeed|of course|sure|i think so|i believe so|是的?|是[啊呀吧]|对的?|对[啊呀]|有的?|存在|正确的?|没错|会的?|能的?|可以的?|"
    r"确实(?:是|有|如此)?|当然(?:是|有)?|肯定(?:是|有)?|真的?|属于)"
    r"(?: it (?:is|does)| they (?:are|do)| there (?:is|are))?"
)
_NO = re.compile(
    r"(?:(?:oh|well|嗯|啊)\s*)?(?:no|nope|nah|false|incorrect|wrong|not really|not at all|never|hardly|of course not|"
    r"(?:definitely|certainly|absolutely) not|非也|否|不|不是的?|没有?的?|不对|不存在|错的?|错误的?|错了|不正确|不会的?|不能|不可以|"
    r"不行|无|假的?|(?:并|当然|肯定|应该)?(?:不是|没有)的?|不属于)(?: it (?:is|does)n['’]t| they (?:are|do)n['’]t)?"
)
"""A clause that is only an answer."""
_UNSURE = re.compile(
    r"\bnot (?:\w+ )?(?:sure|certain|clear|known|possible to)\b|\b(?:unsure|uncertain|unclear|unknown|no idea)\b"
    r"|\b(?:can|could)(?:not|n?['’]t| not) (?:be )?(?:tell|say|determine|know|answer|identif|judge|sure|confirm|verify|make out)"
    r"|\bno way (?:to|of) (?:tell|say|know|determin)"
    r"|\b(?:do|does)(?:n['’]t| not) (?:know|understand)\b|\b(?:hard|impossible|difficult) to\b"
    r"|不知道|不清楚|不确定|不一定|不好说|说不准|无法|看不清|看不出|难以|不能(?:确定|判断|看出)|未知|不明白|不理解|未必|不好判断"
)
_REFUSAL = re.compile(
    r"\b(?:can(?:not|n['’]t|['’]t| not)|could(?:n['’]t| not)|unable to|not able to|(?:do|did)(?:n['’]t| not))"
    r" (?:directly |currently |actually )?(?:see|view|access|open|load|analy[sz]e|process|display|interpret|receive|recogni[sz]e|have)"
    r" (?:(?:access to|the|this|that|these|those|any|your|an?|actual) )*(?:images?|pictures?|photos?|pics?|files?|attachments?|questions?)\b"
    r"|\b(?:images?|pictures?|photos?|questions?|files?) (?:\w+ )?(?:is|are|was|were|has|have|does|do|did|could|can)(?: not|n['’]t)"
    r" (?:\w+ )?(?:load\w*|clear\w*|visible|available|provided|displayed|shown|attached|uploaded|accessible|sharp|readable|good"
    r"|enough|make sense|relevant|appropriate)\b"
    r"|\bno (?:images?|pictures?|photos?|attachments?)\b(?! (?:of|with|show\w*|contain\w*))|\bas an? (?:ai|language|text)"
    r"|\b(?:too (?:blurry|dark|small))\b|\bplease (?:upload|provide|attach|send|do not|don['’]t)\b|\b(?:can(?:not|['’]t)|unable to) (?:help|assist)\b"
    r"|(?:不能|无法|没法|不可以|不会)(?:直接|够)?(?:查看|看到|看见|识别|分析|处理|打开|访问|回答|理解|显示|解读)(?:到)?"
    r"(?:您|你|这|该|任何|此)?(?:张|个|幅|些)?(?:的)?(?:图片|图像|照片|图|问题|影像)"
    r"|看不[到见](?:您|你|这|该|任何)?(?:张|个|幅)?(?:的)?(?:图片|图像|照片|影像)"
    r"|(?:没有|未)(?:提供|上传|收到|看到|附上|显示)?(?:任何)?(?:图片|图像|照片|影像)(?![中里上内])"
    r"|(?:图片|图像|照片|问题|影像)(?:太|过于|很|并)?(?:不(?:够)?(?:清晰|清楚|重要|存在|明确|可用)|没有(?:意义|显示|加载)|无法)"
    r"|作为(?:一个|一款)?\w{0,6}(?:语言模型|人工智能|助手|ai)|请(?:上传|提供|不要|勿|先)|不重要|没有意义|不(?:方便|便)"
)
"""What says that no answer is given."""
_FILLER = re.compile(r"(?:没问题|没有问题|好的?|ok(?:ay)?|well|no problem|sorry|抱歉|对不起|嗯)")
_TWICE = re.compile(
    r"(?:\b(?:not|never|cannot)\b|n['’]t\b)[^,.;!?]*\b(?:no|not|none|without|never)\b"
    r"|\b(?:wrong|incorrect|false|untrue) (?:to (?:say|claim|think|state)|that)\b[^,.;!?]*(?:\b(?:no|not|none|never)\b|n['’]t\b)"
    r"|(?:不是|不能说|不能|并非|并不是|不可能|非|不)[^,.;!?，。]{0,3}(?:没有?|不是|无|不)|不无"
)
"""A denial of a denial, which says neither."""
_SHOWS = re.compile(
    r"\bthere(?: (?:is|are|seems? to be|appears? to be)|['’]s)\b(?!n['’]t| (?:no|not|none|nothing)\b)"
    r"|\b(?:images?|pictures?|photos?|it|scan|x-ray) (?:clearly |also )?(?:shows?|contains?|has|depicts?|displays?|features?|includes?)\b(?! (?:no|not)\b)"
    r"|\bi (?:can )?(?:see|spot|notice)\b(?! (?:no|not)\b)|\b(?:can be|is|are) (?:seen|visible|present|shown)\b|\bi think so\b|\babsolutely\b(?! not)"
    r"|(?<![没无未只具不])有(?![没时点关可])|(?<!不)存在|(?<![没未不])(?<!没有)(?<!不能)(?<!无法)(?:看[到见]|可见|显示出?|出现)(?![不没无])"
)
"""A statement that something is there."""
_QUESTION = re.compile(
    r"\b(?:yes or no|no or yes|yes ?/ ?no|or not|if not|why not)\b|是 ?[/、和] ?否"
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
    r"|不|没|并非|未见|否(?![则定认])|错误|错的|无\s*$|\bcan(?:not|['’]t) (?:see|find)\b"
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


def is_refusal(text: str) -> bool:
    """Whether a text says that it gives no answer: the image cannot be seen, the question is not understood."""
    return _REFUSAL.search(normalise(text).lower()) is not None


def read_yes_no(text: str) -> bool | None:
    """Whether an answer in English or Chinese says yes.

    A refusal says nothing. A first clause that says nothing but yes or no decides ("Yes, there is no dog."), then "the
    answer is …"; else a statement that something is there says yes, and one that it is not there says no. One that
    merely repeats what was asked ("It is a dog.") is neither, for it could repeat something else.

    Args:
        text: The answer.

    Returns:
        True or False; None where the text says neither, both, denies a denial, or is undecided.
    """
    lower = normalise(text).lower()
    if _REFUSAL.search(lower):
        return None
    clauses = [part.strip(" \"'“”「」()*_~-") for part in re.split(r"[,.;:!?，。；：！？、\n]", lower)]
    clauses = [clause for clause in clauses if clause and not _FILLER.fullmatch(clause)]
    whole = [True if _YES.fullmatch(clause) else False if _NO.fullmatch(clause) else None for clause in clauses]
    if whole and whole[0] is not None:
        return None if (not whole[0]) in whole[1:] else whole[0]
    if answer := _ANSWER_IS.search(lower):
        return _YES.fullmatch(answer[1]) is not None
    if first := _FIRST_WORD.match(lower):
        opposite = r"\byes\b" if first[1].startswith("n") else r"\bno\b(?=\W*$)"
        if not re.search(opposite, lower[first.end() :]):
            return not first[1].startswith("n")
    return None if _is_unsure(lower) else _read_statements(lower)


def _read_statements(text: str) -> bool | None:
    """What statements in lower case say; one that begins with a denial may go on with what is there instead."""
    plain = _QUESTION.sub("_", _NO_DENIAL.sub(lambda match: "没错" if match[0] in ("没错", "没有错") else "_", text))
    denials = plain.replace("没错", "_")
    if any(_TWICE.search(clause) for clause in re.split(r"[,.;:!?，。；：！？、\n]", denials)):
        return None
    says_no, shows = _SAYS_NO.search(denials), _SHOWS.search(denials)
    clauses = re.split(r"[,.;:!?，。；：！？、\n]", plain)
    says_yes = _SAYS_YES.search(plain) is not None or any(_ENDS_IN_YES.search(clause) for clause in clauses)
    if says_no and shows and not says_yes:
        return False if says_no.start() <= shows.start() else None
    says_yes = says_yes or shows is not None
    return None if says_yes == (says_no is not None) else says_yes
