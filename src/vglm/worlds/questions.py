"""Questions about a scene in Chinese and English, each with its one right answer.

    kind      Chinese, answer                          English, answer
    subject   图中有什么？  猫。                       What is in the picture?  Cats.
    colour    猫是什么颜色的？  红色。                 What colour are the cats?  Red.
    count     一共有几只猫？  三只。                   How many cats are there?  Three.
    place     这是在什么地方？  在沙滩上。             Where are the cats?  On the beach.
    caption   描述这张图片。  沙滩上有三只红色的猫。   Describe the picture.  Three red cats on the beach.
    yes_no    猫是不是蓝色的？  不是。                 Are the cats blue?  No.
    dialogue  你看到了什么？  猫。  颜色呢？  红色。   What do you see?  Cats.  And the colour?  Red.
    plain     谢谢。  不客气。                         Thanks.  You are welcome.
    repeat    请重复：桌厘巧  桌厘巧                   Repeat: lamp 47 qx  lamp 47 qx

Wordings vary, answers do not, so that exact match means something. An answer given without looking is right 1 time in
12 (subject), 8 (colour), 4 (count), 10 (place), 3,840 (caption) or 2 (yes_no) at best; in a dialogue, the first turn's
grammar can tell one subject from several. `plain` and `repeat` are text alone. Repeating shows the model every
character of GB 2312 level 1, which the scenes by themselves would not.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import Any, TypeVar

import numpy as np

from vglm.data.sample import Turn
from vglm.text.prompt import LANGUAGES, Language
from vglm.worlds.scenes import COLOURS, COUNTS, KINDS, PLACES, Scene

T = TypeVar("T")

QUESTION_KINDS = ("caption", "colour", "count", "place", "subject", "yes_no", "dialogue", "plain", "repeat")
TEXT_ONLY_KINDS = ("plain", "repeat")
ATTRIBUTE_KINDS = ("subject", "colour", "count", "place")
FOLLOW_UP_KINDS = ("colour", "count", "place")
"""What the second turn of a dialogue asks about; never the subject, which the first turn may name."""
YES_NO: Mapping[Language, tuple[str, str]] = {"zh": ("是的。", "不是。"), "en": ("Yes.", "No.")}
"""The answers to questions of the kind "yes_no"."""
_VALUES: dict[str, tuple[str, Sequence[Any]]] = {
    "subject": ("kind", KINDS),
    "colour": ("colour", COLOURS),
    "count": ("count", COUNTS),
    "place": ("place", PLACES),
}
"""The field of a scene that each of these asks about, and what it can be."""

# --- Words ------------------------------------------------------------------------------------------------------------

_ZH_KINDS = {
    "ball": ("球", "个"),
    "star": ("星星", "颗"),
    "heart": ("爱心", "颗"),
    "tree": ("树", "棵"),
    "house": ("房子", "座"),
    "car": ("汽车", "辆"),
    "fish": ("鱼", "条"),
    "boat": ("帆船", "艘"),
    "cat": ("猫", "只"),
    "umbrella": ("雨伞", "把"),
    "flower": ("花", "朵"),
    "cup": ("杯子", "个"),
}
"""Name and measure word."""
_ZH_COLOURS = dict(zip(COLOURS, ("红色", "橙色", "黄色", "绿色", "蓝色", "紫色", "黑色", "白色"), strict=True))
_ZH_COUNTS = dict(zip(COUNTS, ("一", "两", "三", "四"), strict=True))
_ZH_PLACES = dict(
    zip(
        PLACES,
        ("沙滩上", "雪地里", "沙漠里", "森林里", "草地上", "海面上", "夜空中", "街道上", "房间里", "麦田里"),
        strict=True,
    )
)
_EN_COUNTS = dict(zip(COUNTS, ("one", "two", "three", "four"), strict=True))
_EN_PLACES = {
    "beach": "on the beach",
    "snow": "in the snow",
    "desert": "in the desert",
    "forest": "in the forest",
    "grass": "on the grass",
    "sea": "on the sea",
    "night sky": "in the night sky",
    "street": "on the street",
    "room": "in the room",
    "wheat field": "in the wheat field",
}


def _name(kind: str, count: int) -> str:
    """The English noun in the number that fits."""
    return kind if count == 1 or kind == "fish" else kind + "s"


def answer_to(scene: Scene, kind: str, language: Language) -> str:
    """The one right answer to a question about a scene.

    Args:
        scene: What is in the picture.
        kind: "subject", "colour", "count", "place" or "caption".
        language: Of the answer.
    """
    name, measure = _ZH_KINDS[scene.kind]
    number, colour, place = _ZH_COUNTS[scene.count], _ZH_COLOURS[scene.colour], _ZH_PLACES[scene.place]
    noun = _name(scene.kind, scene.count)
    article = "" if scene.count > 1 else "an " if noun[0] in "aeiou" else "a "
    answers = {
        "subject": (f"{name}。", f"{article}{noun}.".capitalize()),
        "colour": (f"{colour}。", f"{scene.colour.capitalize()}."),
        "count": (f"{number}{measure}。", f"{_EN_COUNTS[scene.count].capitalize()}."),
        "place": (f"在{place}。", f"{_EN_PLACES[scene.place].capitalize()}."),
        "caption": (
            f"{place}有{number}{measure}{colour}的{name}。",
            f"{_EN_COUNTS[scene.count].capitalize()} {scene.colour} {noun} {_EN_PLACES[scene.place]}.",
        ),
    }
    return answers[kind][LANGUAGES.index(language)]


# --- Wordings ---------------------------------------------------------------------------------------------------------
# {here} is a phrase for "in the picture"; {thing} names the subjects or says "things"; {be} and {do} agree with it.
# Questions about the number always use the plural {names}, so that grammar does not give the answer away.

_HERE: dict[Language, tuple[str, ...]] = {
    "zh": (
        "图中",
        "图里",
        "图上",
        "图片中",
        "图片里",
        "画面中",
        "画面里",
        "这张图里",
        "这张图片中",
        "照片里",
        "这幅画里",
    ),
    "en": (
        "in the picture",
        "in this picture",
        "in the image",
        "in this image",
        "in the photo",
        "in this photo",
        "here",
    ),
}

_QUESTIONS: dict[tuple[str, Language], tuple[str, ...]] = {
    ("subject", "zh"): (
        "{here}有什么？",
        "{here}有什么东西？",
        "{here}有些什么？",
        "{here}是什么？",
        "{here}是什么东西？",
        "{here}画的是什么？",
        "{here}能看到什么？",
        "{here}可以看见什么东西？",
        "{here}出现了什么？",
        "{here}的物体是什么？",
        "{here}的主体是什么？",
        "你在{here}看到了什么？",
        "你看到了什么？",
        "这是什么？",
        "这是什么东西？",
        "请说出{here}的东西叫什么。",
        "请认一认{here}的物体。",
        "{here}的主角是什么？",
    ),
    ("subject", "en"): (
        "What is {here}?",
        "What is shown {here}?",
        "What can you see {here}?",
        "What do you see {here}?",
        "What do you see?",
        "What is this?",
        "What object is {here}?",
        "What kind of thing is {here}?",
        "Which object can be seen {here}?",
        "What does the picture show?",
        "What is the subject of the picture?",
        "What appears {here}?",
        "Name the thing {here}.",
        "Tell me what is {here}.",
        "Identify the main object {here}.",
    ),
    ("colour", "zh"): (
        "{thing}是什么颜色？",
        "{thing}是什么颜色的？",
        "{here}的{thing}是什么颜色？",
        "{here}的{thing}是什么颜色的？",
        "{thing}的颜色是什么？",
        "{here}的{thing}的颜色是什么？",
        "{here}{thing}的颜色是哪一种？",
        "{thing}是哪种颜色的？",
        "{here}的{thing}是哪种颜色？",
        "你看到的{thing}是什么颜色？",
        "{thing}有着什么样的颜色？",
        "什么颜色的{thing}？",
        "请说出{thing}的颜色。",
        "请告诉我{here}的{thing}是什么颜色。",
        "看看{here}的{thing}，它是什么颜色？",
    ),
    ("colour", "en"): (
        "What colour {be} {thing}?",
        "What colour {be} {thing} {here}?",
        "What color {be} {thing}?",
        "What color {be} {thing} {here}?",
        "Which colour {be} {thing}?",
        "Which colour {do} {thing} have?",
        "What is the colour of {thing}?",
        "What is the colour of {thing} {here}?",
        "What is the color of {thing} {here}?",
        "In which colour {be} {thing} painted?",
        "Name the colour of {thing}.",
        "Tell me the colour of {thing} {here}.",
        "Say what colour {thing} {be}.",
    ),
    ("count", "zh"): (
        "有几{measure}{name}？",
        "{here}有几{measure}{name}？",
        "{here}一共有几{measure}{name}？",
        "一共有多少{measure}{name}？",
        "{here}有多少{measure}{name}？",
        "{here}有多少{name}？",
        "你看到了几{measure}{name}？",
        "{here}能看到几{measure}{name}？",
        "{here}的{thing}有多少？",
        "{here}的{thing}一共有多少？",
        "{thing}的数量是多少？",
        "{here}{thing}的数量是多少？",
        "数一数{here}的{thing}。",
        "请数一数{here}有几{measure}{name}。",
        "请说出{thing}的数目。",
        "{here}有几个{thing}？",
    ),
    ("count", "en"): (
        "How many {names} are there?",
        "How many {names} are {here}?",
        "How many {names} are there {here}?",
        "How many {names} can you see?",
        "How many {names} do you see {here}?",
        "How many {names} does the picture show?",
        "How many {names} appear {here}?",
        "What is the number of {names}?",
        "What is the number of {names} {here}?",
        "Count the {names}.",
        "Count the {names} {here}.",
        "Tell me how many {names} there are {here}.",
        "Say the number of {names} you see.",
    ),
    ("place", "zh"): (
        "{thing}在哪里？",
        "{thing}在哪儿？",
        "{here}的{thing}在哪里？",
        "{here}的{thing}在什么地方？",
        "{thing}在什么地方？",
        "{thing}位于哪里？",
        "{here}的{thing}处在什么地方？",
        "这是在哪里？",
        "这是在什么地方？",
        "{here}是什么地方？",
        "这张图是在哪里画的？",
        "你能看出这是哪里吗？",
        "请说出{thing}所在的地方。",
        "请说出{here}的地点。",
        "{here}的地点是哪里？",
        "{here}的场景是在哪里？",
    ),
    ("place", "en"): (
        "Where {be} {thing}?",
        "Where {be} {thing} {here}?",
        "Where can {thing} be seen?",
        "Where do you see {thing}?",
        "Where is this?",
        "Where was this picture made?",
        "In which place {be} {thing}?",
        "At what place {be} {thing} {here}?",
        "What place is this?",
        "Where does the scene take place?",
        "What is the location of {thing}?",
        "Tell me where {thing} {be}.",
        "Name the place {here}.",
        "Say where this is.",
    ),
    ("caption", "zh"): (
        "描述这张图片。",
        "描述一下这张图片。",
        "请描述这张图片。",
        "请描述一下{here}的情景。",
        "请描述这幅画。",
        "请用一句话描述这张图。",
        "用一句话概括{here}的情景。",
        "用一句话说说这张图片。",
        "请介绍一下这张图片。",
        "给这张图片写一句说明。",
        "为这张照片写一个标题。",
        "这张图片讲了什么？",
        "这张图片描绘了什么？",
        "这幅画画了什么样的场景？",
        "{here}是怎样的场景？",
        "请完整地说出你看到的情景。",
        "看图说话。",
        "看图写一句话。",
    ),
    ("caption", "en"): (
        "Describe the picture.",
        "Describe this image.",
        "Describe this photo.",
        "Describe what you see.",
        "Describe the scene {here}.",
        "Please describe this picture in one sentence.",
        "Give a short description of the image.",
        "Write a caption for this picture.",
        "Write one sentence about the picture.",
        "What is going on {here}?",
        "What scene is shown {here}?",
        "Summarise the picture in one sentence.",
        "Can you describe the image?",
        "How would you describe this picture?",
        "Caption this image.",
    ),
}

_FOLLOW_UPS: dict[tuple[str, Language], tuple[str, ...]] = {
    ("colour", "zh"): (
        "它是什么颜色？",
        "它是什么颜色的？",
        "那颜色呢？",
        "颜色呢？",
        "那是什么颜色的？",
        "是哪种颜色？",
    ),
    ("colour", "en"): ("What colour?", "And the colour?", "And what colour do you see?", "Which color is that?"),
    ("count", "zh"): ("有几个？", "那有几个？", "有多少？", "那一共有多少？", "数量呢？", "一共几个？"),
    ("count", "en"): ("How many?", "And how many?", "How many are there?", "How many do you see?", "And the number?"),
    ("place", "zh"): ("在哪里？", "那在哪里？", "它在哪儿？", "是在什么地方？", "地点呢？", "那是在哪里？"),
    ("place", "en"): ("Where?", "And where?", "Where is that?", "In what place?", "And the place?"),
}

_CLAIMS: dict[tuple[str, Language], tuple[str, ...]] = {
    ("subject", "zh"): ("{here}是{guess}", "{here}的东西是{guess}", "这是{guess}", "{here}的物体是{guess}"),
    ("subject", "en"): ("the picture shows {guess}", "there are {guess} {here}", "{guess} can be seen {here}"),
    ("colour", "zh"): ("{thing}是{guess}的", "{here}的{thing}是{guess}的", "{thing}的颜色是{guess}"),
    ("colour", "en"): ("{thing} {be} {guess}", "{thing} {here} {be} {guess}", "the colour of {thing} is {guess}"),
    ("count", "zh"): ("{here}是{guess}{name}", "一共是{guess}{name}", "{name}的数量是{guess}"),
    ("count", "en"): ("{guess} can be seen {here}", "the picture shows {guess}", "you see {guess} {here}"),
    ("place", "zh"): ("{thing}是在{guess}", "{here}的{thing}是在{guess}", "这是在{guess}"),
    ("place", "en"): ("{thing} {be} {guess}", "you see {thing} {guess}", "this is {guess}"),
}
_CLAIM_FRAMES: dict[Language, tuple[str, ...]] = {
    "zh": (
        "{claim}吗？",
        "{claim}，对吗？",
        "{claim}，对不对？",
        "{claim}，是不是？",
        "{claim}，是吗？",
        "请判断：{claim}。",
    ),
    "en": (
        "Is it true that {claim}?",
        "Is it right that {claim}?",
        "Would you say that {claim}?",
        "Can you confirm that {claim}?",
        "{claim}, yes or no?",
        "{claim}, right?",
    ),
}
_DIRECT_QUESTIONS: dict[tuple[str, Language], tuple[str, ...]] = {
    ("subject", "zh"): ("{here}的是不是{guess}？", "这是不是{guess}？"),
    ("subject", "en"): (
        "Are there any {guess} {here}?",
        "Do you see {guess} {here}?",
        "Does the picture show {guess}?",
    ),
    ("colour", "zh"): ("{thing}是不是{guess}的？", "{here}的{thing}是不是{guess}的？"),
    ("colour", "en"): ("{be} {thing} {guess}?", "{be} {thing} {here} {guess}?", "{do} {thing} look {guess}?"),
    ("count", "zh"): ("是不是一共{guess}{name}？", "{here}是不是{guess}{name}？"),
    ("count", "en"): ("Do you see {guess} {here}?", "Does the picture show {guess}?", "Can {guess} be seen {here}?"),
    ("place", "zh"): ("{thing}是不是在{guess}？", "{here}的{thing}是不是在{guess}？"),
    ("place", "en"): ("{be} {thing} {guess}?", "Is this {guess}?"),
}

_LEAD_INS: dict[Language, tuple[str, ...]] = {
    "zh": ("请问，", "请问", "请回答：", "看图回答：", "问题：", "你好，"),
    "en": ("Please answer: ", "Question: ", "Look at the picture. ", "A question: ", "Hello. "),
}
_THINGS: dict[Language, tuple[str, ...]] = {"zh": ("东西", "物体"), "en": ("object", "thing")}

_PLAIN: dict[Language, tuple[tuple[tuple[str, ...], str], ...]] = {
    "zh": (
        (
            ("你好", "你好！", "您好。", "你好呀。", "早上好。", "晚上好！", "很高兴见到你。"),
            "你好，请给我看一张图片。",
        ),
        (("你是谁？", "你叫什么名字？", "介绍一下你自己。", "你是什么？", "请做个自我介绍。"), "我是小小的看图助手。"),
        (("你能做什么？", "你会做什么？", "你有什么用？", "你可以帮我做什么？"), "我可以回答关于图片的问题。"),
        (("谢谢。", "谢谢你！", "多谢。", "太好了，谢谢。", "非常感谢！"), "不客气。"),
        (("再见。", "拜拜。", "下次见。", "晚安。", "我走了，再见！"), "再见。"),
        (
            ("{here}有什么？", "描述这张图片。", "{here}有几个东西？", "这是什么颜色？", "这是在哪里？"),
            "我没有看到图片。",
        ),
    ),
    "en": (
        (
            ("Hello", "Hello!", "Hi.", "Good morning.", "Good evening!", "Nice to meet you."),
            "Hello, please show me a picture.",
        ),
        (
            ("Who are you?", "What is your name?", "What are you?", "Introduce yourself."),
            "I am a small helper who looks at pictures.",
        ),
        (
            ("What can you do?", "How can you help me?", "What are you good for?"),
            "I can answer questions about pictures.",
        ),
        (("Thanks.", "Thank you!", "Thank you very much.", "Great, thanks!"), "You are welcome."),
        (("Goodbye.", "Bye!", "See you.", "Good night.", "I have to go, bye."), "Goodbye."),
        (
            ("What is {here}?", "Describe the picture.", "How many things are {here}?", "Where is this?"),
            "I do not see a picture.",
        ),
    ),
}
"""Ways to begin, and the answer to all of them; the last entry asks about a picture where there is none."""
_REPEAT: dict[Language, tuple[str, ...]] = {
    "zh": ("请重复：", "重复：", "跟我念：", "请跟我说：", "照着写：", "请原样写出："),
    "en": ("Repeat: ", "Please repeat: ", "Repeat after me: ", "Say: ", "Copy this: ", "Write the same: "),
}


# --- Asking -----------------------------------------------------------------------------------------------------------


def ask(scene: Scene, kind: str, language: Language, rng: np.random.Generator) -> tuple[Turn, ...]:
    """Ask a question of a kind, in one of its wordings.

    Args:
        scene: What is in the picture; it does not matter to the kinds in `TEXT_ONLY_KINDS`.
        kind: One of `QUESTION_KINDS`.
        language: Of the question and its answer.
        rng: Chooses the wording, the guess in a yes/no question, the characters to repeat.

    Returns:
        One turn with its answer; two for a "dialogue".
    """
    if kind == "dialogue":
        follow_up = _pick(rng, FOLLOW_UP_KINDS)
        first = _pick(rng, [other for other in ATTRIBUTE_KINDS if other != follow_up])
        question, answer = _pick(rng, _FOLLOW_UPS[follow_up, language]), answer_to(scene, follow_up, language)
        return (*ask(scene, first, language, rng), Turn(question, answer))
    if kind == "plain":
        questions, answer = _pick(rng, _PLAIN[language])
        return (Turn(_pick(rng, questions).format(here=_pick(rng, _HERE[language])), answer),)
    if kind == "repeat":
        text = _text_to_repeat(rng, language)
        return (Turn(_pick(rng, _REPEAT[language]) + text, text),)
    if kind == "yes_no":
        template, guess, answer = _yes_no(scene, language, rng)
    else:
        template, guess, answer = _pick(rng, _QUESTIONS[kind, language]), "", answer_to(scene, kind, language)
    question = template.format(guess=guess, **_slots(scene, language, rng))
    question = question[0].upper() + question[1:]
    if rng.random() < 0.2 and question.endswith(("？", "?")) and not question.startswith("请"):
        question = _pick(rng, _LEAD_INS[language]) + question
    if rng.random() < 0.1:
        question = question.rstrip("？?。.")
    return (Turn(question, answer),)


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _slots(scene: Scene, language: Language, rng: np.random.Generator) -> dict[str, str]:
    """What the wordings leave open; three times in four the subjects are called by name."""
    here, by_name, generic = _pick(rng, _HERE[language]), rng.random() < 0.75, _pick(rng, _THINGS[language])
    if language == "zh":
        name, measure = _ZH_KINDS[scene.kind]
        return {"here": here, "thing": name if by_name else generic, "name": name, "measure": measure}
    noun = scene.kind if by_name else generic
    one = scene.count == 1
    return {
        "here": here,
        "thing": f"the {_name(noun, scene.count)}",
        "names": _name(noun, 2),
        "be": "is" if one else "are",
        "do": "does" if one else "do",
    }


def _yes_no(scene: Scene, language: Language, rng: np.random.Generator) -> tuple[str, str, str]:
    """A wording, the value it supposes, the answer: half the time true, else evenly one of the false values."""
    attribute = _pick(rng, ATTRIBUTE_KINDS)
    field, values = _VALUES[attribute]
    supposed, right = scene, bool(rng.random() < 0.5)
    if not right:
        supposed = replace(scene, **{field: _pick(rng, [value for value in values if value != getattr(scene, field)])})
    if rng.random() < 0.4:
        template = _pick(rng, _DIRECT_QUESTIONS[attribute, language])
    else:
        template = _pick(rng, _CLAIM_FRAMES[language]).replace("{claim}", _pick(rng, _CLAIMS[attribute, language]))
    name, measure = _ZH_KINDS[supposed.kind]
    guesses = {
        "subject": (name, _name(supposed.kind, 2)),
        "colour": (_ZH_COLOURS[supposed.colour], supposed.colour),
        "count": (
            f"{_ZH_COUNTS[supposed.count]}{measure}",
            f"{_EN_COUNTS[supposed.count]} {_name(supposed.kind, supposed.count)}",
        ),
        "place": (_ZH_PLACES[supposed.place], _EN_PLACES[supposed.place]),
    }
    return template, guesses[attribute][LANGUAGES.index(language)], YES_NO[language][0 if right else 1]


def _text_to_repeat(rng: np.random.Generator, language: Language) -> str:
    """Two to four characters; in English one to three short words, letter strings or numbers."""
    if language == "zh":
        hanzi = gb2312_level_1()
        return "".join(hanzi[i] for i in rng.integers(len(hanzi), size=int(rng.integers(2, 5))).tolist())
    pieces = []
    for _ in range(int(rng.integers(1, 4))):
        form = rng.random()
        if form < 0.4:
            pieces.append(_pick(rng, (*KINDS, *COLOURS, *_EN_COUNTS.values())))
        elif form < 0.7:
            letters = string.ascii_lowercase if form < 0.6 else string.ascii_uppercase
            pieces.append("".join(_pick(rng, letters) for _ in range(int(rng.integers(1, 4)))))
        else:
            pieces.append(str(int(rng.integers(1000))))
    return " ".join(pieces)


# --- Characters -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def gb2312_level_1() -> str:
    """The 3,755 commonest Chinese characters, in the order of the standard (rows 16 to 55 of GB 2312)."""
    codes = (bytes((row, cell)) for row, cell in product(range(0xB0, 0xD8), range(0xA1, 0xFF)))
    return "".join(code.decode("gb2312") for code in codes if code <= b"\xd7\xf9")


def characters() -> str:
    """Every character a tokenizer for this world should know: GB 2312 level 1, printable ASCII, Chinese punctuation."""
    return gb2312_level_1() + "".join(map(chr, range(0x21, 0x7F))) + "。，、；：？！“”‘’（）《》【】…—·～"
