import pytest
from hypothesis import given
from hypothesis import strategies as st

from vglm.evaluation.score.metrics.parsing import parse_choice, parse_label, read_yes_no

CLASSES = ("nova", "dwarf nova", "mira", "米拉", "新星", "肺炎")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Nova", "nova"),
        ("It is a nova.", "nova"),
        ("a dwarf nova", "dwarf nova"),
        ("a dwarf nova, not a nova", "dwarf nova"),
        ("a supernova", None),
        ("a nova, or a mira", None),
        ("这是米拉变星。", "米拉"),
        ("", None),
        ("not a nova", None),
        ("isn’t likely to be a nova", None),
        ("It is not a nova, it is a mira.", "mira"),
        ("not a nova but a mira", "mira"),
        ("a mira rather than a nova", "mira"),
        ("这不是新星，而是米拉变星", "米拉"),
        ("不是新星是米拉", "米拉"),
        ("不可能是新星", None),
        ("双肺未见肺炎", None),
        ("No doubt a nova", "nova"),
        ("非常像新星", "新星"),
        ("毫无疑问是新星", "新星"),
    ],
)
def test_the_only_class_that_is_named_and_not_denied(text: str, expected: str | None) -> None:
    assert parse_label(text, CLASSES) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b", "B"),
        ("（Ｂ）", "B"),
        ("B. a red circle", "B"),
        ("B.  A red circle", "B"),
        ("B、一个红色的圆", "B"),
        ("答案是B，因为A是红色的", "B"),
        ("The answer is B.\nA is red.", "B"),
        ("the correct option is C because A is red", "C"),
        ("选择 C", "C"),
        ("C项", "C"),
        ("I choose B rather than A", "B"),
        ("not A but B", "B"),
        ("不是A，而是B", "B"),
        ("答案不是A", None),
        ("不选A", None),
        ("A red circle.", None),
        ("The answer is A red circle", None),
        ("A. B.", None),
        ("(A), (B)", None),
        ("The answer is A or B", None),
        ("答案是A或B", None),
        ("E", None),
        ("没有一个", None),
    ],
)
def test_the_option_that_is_chosen_by_its_letter(text: str, expected: str | None) -> None:
    assert parse_label(text, list("ABCD")) == expected


WRAPPED = [
    "{}",
    "({})",
    "{}.",
    "**{}**",
    "答案是{}",
    "答案：{}。",
    "选{}",
    "我认为是{}",
    "The answer is {}.",
    "Answer: {}",
    "{}选项",
]


@given(st.sampled_from("ABCD"), st.sampled_from("ABCD"), st.sampled_from(WRAPPED))
def test_letters_in_any_wrapping(first: str, second: str, wrapped: str) -> None:
    assert parse_label(wrapped.format(first), list("ABCD")) == first
    if first != second:
        for several in ("{} or {}", "{}和{}", "{}, {}"):
            assert parse_label(wrapped.format(several.format(first, second)), list("ABCD")) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes, there is no dog.", True),
        ("No, it is.", False),
        ("No there is no dog", False),
        ("The answer is yes.", True),
        ("I would say no.", False),
        ("There is no dog.", False),
        ("It isn't blue", False),
        ("That is correct.", True),
        ("Ｙｅｓ", True),
        ("It is a dog.", None),
        ("Yes and no", None),
        ("Not sure", None),
        ("I don't know", None),
        ("No idea", None),
        ("eyes, known", None),
        ("是，图中有一只狗", True),
        ("我认为是", True),
        ("没错", True),
        ("答案是：是", True),
        ("答案是否", False),
        ("否，没有", False),
        ("不是。", False),
        ("猫不是蓝色的", False),
        ("图中没有猫", False),
        ("这是不正确的", False),
        ("应该不是吧", False),
        ("猫是不是蓝色的？不是", False),
        ("是的，不是红色", True),
        ("猫是红色的", None),
        ("是不是蓝色", None),
        ("否则", None),
        ("不知道", None),
        ("看不清，可能是", None),
        ("对不起，我不知道", None),
    ],
)
def test_yes_and_no_in_sentences(text: str, expected: bool | None) -> None:
    assert read_yes_no(text) is expected
    for yes, no in (("Yes.", "No."), ("是的。", "不是。"), ("是", "否"), ("对", "错")):
        label = None if expected is None else yes if expected else no
        assert parse_label(text, (yes, no)) == parse_label(text, (no, yes)) == label


OPTIONS = ("a red circle", "a blue square", "a circle")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red circle.", "a red circle"),
        ("a circle", "a circle"),
        ("(B)", "a blue square"),
        ("B. a blue square", "a blue square"),
        ("the answer is C", "a circle"),
        ("A. a red circle, not the blue square", "a red circle"),
        ("B. a red circle", None),
        ("a red circle or a blue square", None),
        ("not a circle", None),
        ("D", None),
    ],
)
def test_choices_by_name_or_letter(text: str, expected: str | None) -> None:
    assert parse_choice(text, OPTIONS) == expected


def test_choices_may_bring_their_letters() -> None:
    assert parse_choice("B", ("B. left lung", "A. right lung")) == "B. left lung"
    assert parse_choice("right lung", ("B. left lung", "A. right lung")) is None  # not all of the choice
    assert parse_choice("B", ("Yes", "No")) == "No"
    assert parse_choice("AB", ("AB", "CD")) == "AB"


TEXTS = st.text(
    alphabet=st.sampled_from(list("ABCabc ().,，。、:是不否没有错yesno'\n*的对答案选nova新星")), max_size=24
)


@given(TEXTS, st.sampled_from([("yes", "no"), ("是", "否"), tuple("ABCD"), CLASSES, OPTIONS, ("对", "不对", "不知道")]))
def test_any_text_is_one_of_the_labels_or_unparsed(text: str, labels: tuple[str, ...]) -> None:
    for parse in (parse_label, parse_choice):
        assert parse(text, labels) in (*labels, None)
        assert parse(f" {text}\n", labels) == parse(text, labels)


@given(st.text(max_size=40))
def test_no_text_is_too_odd(text: str) -> None:
    assert parse_choice(text, OPTIONS) in (*OPTIONS, None)
    assert read_yes_no(text) in (True, False, None)


@given(st.sampled_from([*CLASSES, *OPTIONS, "Yes.", "不是。"]))
def test_a_label_itself_is_that_label(label: str) -> None:
    labels = (*CLASSES, *OPTIONS, "Yes.", "不是。")
    assert parse_label(label, labels) == parse_label(f"“{label.upper()}”！", labels) == label


SENTENCES = [
    ("I cannot confirm that there is a cat.", None),
    ("There's no way to tell from this image.", None),
    ("It would be wrong to say there is no cat.", None),
    ("There is nothing but a cat.", True),
    ("Why not? Yes.", True),
    ("Hardly.", False),
    ("I cannot view images", None),
    ("抱歉，我看不到图片", None),
    ("I'm unable to see the image.", None),
    ("As an AI language model, I cannot see pictures.", None),
    ("我无法查看图片。", None),
    ("对不起，我不能识别图像。", None),
    ("没有提供图片。", None),
    ("No image was provided.", None),
    ("I don't have access to the image.", None),
    ("我不明白你的问题。", None),
    ("I can't answer that.", None),
    ("这个问题没有意义。", None),
    ("It is hard to say.", None),
    ("图片不清晰。", None),
    ("The image is too blurry.", None),
    ("I do not see any image.", None),
    ("Please upload an image.", None),
    ("请上传图片。", None),
    ("There is a dog.", True),
    ("The dog is in the picture.", None),
    ("A cat can be seen.", True),
    ("There are two cats.", True),
    ("图片中有两只猫。", True),
    ("存在。", True),
    ("我看到一只猫。", True),
    ("I can see a cat.", True),
    ("The picture shows a cat.", True),
    ("图中显示有猫。", True),
    ("可见骨折。", True),
    ("未见骨折。", False),
    ("看不到猫。", False),
    ("I don't see a cat.", False),
    ("I cannot see a cat in the image.", False),
    ("图里没有猫。", False),
    ("I do not think so.", False),
    ("I don't think there is a cat.", False),
    ("Not really.", False),
    ("Absolutely.", True),
    ("Absolutely not.", False),
    ("肯定不是。", False),
    ("当然有。", True),
    ("不会。", False),
    ("It is not true that there is no cat.", None),
    ("There is no doubt that there is a cat.", True),
    ("不是没有猫。", None),
    ("并非没有。", None),
    ("It isn't that there is no cat.", None),
    ("不无可能。", None),
    ("Perhaps.", None),
    ("Maybe yes, maybe no.", None),
    ("可能有。", True),
    ("Probably not.", False),
    ("可能没有。", False),
    ("可能吧。", None),
    ("yes/no", None),
    ("是/否", None),
    ("是或否", None),
    ("Yes or no.", None),
    ("是。否。", None),
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES)
def test_refusals_statements_and_double_denials(text: str, expected: bool | None) -> None:
    assert read_yes_no(text) is expected


LETTERS, ANIMALS = ("A", "B", "C", "D"), ("a cat", "a dog", "a bird", "a fish")
TAKEN = [
    ("Answer: d", LETTERS, ANIMALS, "D"),
    ("答案是b。", LETTERS, ANIMALS, "B"),
    ("Both A and B are wrong; C.", LETTERS, ANIMALS, "C"),
    ("A or B is not right, D is", LETTERS, ANIMALS, "D"),
    ("A. a cat\nB. a dog\nC. a bird\nD. a fish", LETTERS, ANIMALS, None),
    ("A, B, C, D", LETTERS, ANIMALS, None),
    ("ABCD", LETTERS, (), None),
    ("选项：A. 猫 B. 狗", ("A", "B"), ("猫", "狗"), None),
    ("A. a cat B. a dog C. a bird D. a fish. The answer is B.", LETTERS, ANIMALS, "B"),
    ("cats", LETTERS, ANIMALS, "A"),
    ("dogs", LETTERS, ANIMALS, "B"),
    ("The fish", LETTERS, ANIMALS, "D"),
    ("It's a bird.", LETTERS, ANIMALS, "C"),
    ("a cat and a dog", LETTERS, ANIMALS, None),
    ("一只猫", ("猫", "狗"), (), "猫"),
    ("I cannot see the image.", LETTERS, ANIMALS, None),
    ("None of the above", LETTERS, ANIMALS, None),
    ("以上都不是", LETTERS, ANIMALS, None),
    ("All of the above", LETTERS, ANIMALS, None),
    ("B or C", LETTERS, ANIMALS, None),
    ("Option B is wrong", LETTERS, ANIMALS, None),
    ("A cat, not a dog", LETTERS, ANIMALS, "A"),
    ("(A)", LETTERS, ANIMALS, "A"),
    ("a red circle (A) or a blue square (B)", ("a red circle", "a blue square"), (), None),
    ("The answer is (C) a bird.", LETTERS, ANIMALS, "C"),
    ("the dog", ("a cat", "a dog"), (), "a dog"),
    ("An apple.", ("the apple", "pears"), (), "the apple"),
    ("boxes", ("box", "car"), (), "box"),
    ("no", ("yes", "no"), (), "no"),
    ("left and right", ("left", "right"), (), None),
    ("not the left but the right", ("left", "right"), (), "right"),
    ("异常", ("正常", "异常"), (), "异常"),
    ("不异常", ("正常", "异常"), (), "正常"),
    ("未见异常", ("正常", "异常"), (), "正常"),
    ("恶性可能性大", ("良性", "恶性"), (), "恶性"),
    ("abnormal", ("normal", "abnormal"), (), "abnormal"),
    ("not normal", ("normal", "abnormal"), (), "abnormal"),
    ("not malignant", ("benign", "malignant"), (), "benign"),
]


@pytest.mark.parametrize(("text", "choices", "meanings", "expected"), TAKEN)
def test_choices_taken_echoed_and_denied(
    text: str, choices: tuple[str, ...], meanings: tuple[str, ...], expected: str | None
) -> None:
    assert parse_choice(text, choices, meanings) == expected


@given(
    st.permutations(LETTERS), st.sampled_from(["{}. {}", "({}) {}", "{}) {}", "{}: {}"]), st.sampled_from([" ", "\n"])
)
def test_an_echo_of_all_options_takes_none(order: list[str], option: str, between: str) -> None:
    meanings = dict(zip(LETTERS, ANIMALS, strict=True))
    text = between.join(option.format(letter, meanings[letter]) for letter in order)
    assert parse_choice(text, LETTERS, ANIMALS) is None
    assert parse_choice(f"{text} The answer is {order[0]}.", LETTERS, ANIMALS) == order[0]
