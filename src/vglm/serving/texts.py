"""Every text of the web pages, in English and Chinese: key -> (English, Chinese)."""

import os
from collections.abc import Mapping
from typing import Any

from vglm.evaluation.report.strings import FINDING_TITLES

LANGUAGES = ("en", "zh")

_WEB: Mapping[str, tuple[str, str]] = {
    "title": ("VisualGLM Workbench", "VisualGLM 工作台"),
    "before": ("Before", "微调前"),
    "after": ("After", "微调后"),
    "base": ("base {hash}, adapter off", "基座 {hash}，适配器关闭"),
    "tuned": ("base {hash}, adapter {name}", "基座 {hash}，适配器 {name}"),
    "no_adapter": (
        "No adapter is loaded: start with --adapter RUN to compare before and after.",
        "没有加载适配器：用 --adapter RUN 启动即可对比微调前后。",
    ),
    "image": ("Image", "图片"),
    "drop": ("Drop an image here\nor click", "拖入图片\n或点击选择"),
    "question": ("Question", "问题"),
    "placeholder": ("Ask about the image, Enter to send", "就图片提问，回车发送"),
    "ask": ("Ask", "提问"),
    "stop": ("Stop", "停止"),
    "clear": ("Clear", "清空"),
    "show": ("Who answers", "由谁回答"),
    "both": ("Both", "两者"),
    "adapter": ("Adapter", "适配器"),
    "settings": ("Settings", "设置"),
    "max_tokens": ("Longest answer, tokens", "回答最大长度（词元）"),
    "temperature": ("Temperature (0: greedy)", "温度（0：贪心）"),
    "top_p": ("Top-p", "Top-p"),
    "top_k": ("Top-k (0: all)", "Top-k（0：全部）"),
    "repetition_penalty": ("Repetition penalty (1: none)", "重复惩罚（1：无）"),
    "seed": ("Seed, of both columns (-1: another every time)", "随机种子，两列相同（-1：每次不同）"),
    "language": ("Language of prompt and answer", "提示与回答的语言"),
    "auto": ("as the question", "与问题相同"),
    "zh": ("Chinese", "中文"),
    "en": ("English", "英文"),
    "samples": ("Samples of the evaluation {title}", "评测 {title} 的样本"),
    "reference": ("True answer", "真实答案"),
    "small_copy": (
        "The original file is not there, so this is the small copy kept by the evaluation: answers may differ.",
        "原图已不存在，这里显示的是评测保存的缩小副本，回答可能不同。",
    ),
    "small_lost": ("The picture of this sample is no longer there.", "此样本的图片已不存在。"),
    "bad_image": (
        "This file cannot be used: {error}",
        "该文件不能使用。请选择一张完好的静态图片（PNG、JPEG、WEBP、BMP、GIF、TIFF），"
        "不超过 {pixels} 像素、{size} MB。",
    ),
    "failed": ("No answer: {error}", "没有得到回答：{error}"),
    "empty": ("Type a question first.", "请先输入问题。"),
    "cut": (" … (cut at the length limit)", " …（已达长度上限）"),
}

_RATING: Mapping[str, tuple[str, str]] = {
    "title": ("Blinded rating", "盲评"),
    "about": (
        "You see an image, a question and two answers in random order. Say which answer is better. Your ratings are"
        " kept as you go, and you can stop and come back at any time under the same name.",
        "您将看到一张图片、一个问题和两个顺序随机的回答，请判断哪个更好。评分会随时保存，可随时停止，之后用同一名字继续。",
    ),
    "name": ("Your name", "您的名字"),
    "begin": ("Begin", "开始"),
    "progress": ("{done} of {total} rated", "已评 {done} / {total}"),
    "left_answer": ("Left answer", "左侧回答"),
    "right_answer": ("Right answer", "右侧回答"),
    "left": ("Left is better", "左侧更好"),
    "equal": ("Equal", "相当"),
    "right": ("Right is better", "右侧更好"),
    "left_short": ("left", "左"),
    "equal_short": ("equal", "相当"),
    "right_short": ("right", "右"),
    "by_finding": ("Which answer is right about each finding? (optional)", "就每项征象而言，哪个回答更正确？（可选）"),
    "back": ("back", "上一个"),
    "forward": ("forward", "下一个"),
    "done": ("All samples are rated. Thank you!", "全部样本已评完，谢谢！"),
    "unreachable": (
        "The server does not answer. Is `vglm rate` still running?",
        "服务器没有响应。`vglm rate` 还在运行吗？",
    ),
}


def default_language() -> str:
    """That of the environment: Chinese where its locale is, else English."""
    names = (os.environ.get(name, "") for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return "zh" if next(filter(None, names), "").startswith("zh") else "en"


def web_texts(language: str) -> dict[str, str]:
    """The texts of `vglm web`."""
    return _of(_WEB, language)


def rating_texts(language: str) -> dict[str, Any]:
    """The texts of `vglm rate`; under `findings`, what findings are called."""
    return {**_of(_RATING, language), "findings": FINDING_TITLES if language == "zh" else {}}


def _of(texts: Mapping[str, tuple[str, str]], language: str) -> dict[str, str]:
    place = LANGUAGES.index(language)
    return {key: pair[place] for key, pair in texts.items()}
