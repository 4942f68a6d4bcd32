r"""The one prompt of VisualGLM: training, evaluation and chat all build theirs here.

    >>> prompt = Prompt("图中有几个人？", history=(("描述这张图片。", "一片森林。"),), has_image=True)
    >>> prompt.before_image, prompt.after_image
    ('<img>', '</img>问：描述这张图片。\n答：一片森林。\n问：图中有几个人？\n答：')

The image fills its slots between the two texts. Each text is encoded by itself (`VisualGlmTokenizer.encode_plain`);
`[gMASK] <sop>` and the answer follow. To the tokenizer `<img>` and `</img>` are ordinary text, harmless where a user
types them.
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

Language = Literal["zh", "en"]
"""What a prompt is written in: Chinese or English."""

LANGUAGES: tuple[Language, ...] = get_args(Language)

_FULL_WIDTH = {",": "，", "!": "！", ":": "：", ";": "；", "?": "？"}
_BESIDE_CHINESE = re.compile("(?<=[\u4e00-\u9fff])[,!:;?]|[,!:;?](?=[\u4e00-\u9fff])")


@dataclass(frozen=True, slots=True)
class Prompt:
    r"""A question to the model.

    Attributes:
        question: The current question.
        history: Earlier (question, answer) pairs of the same dialogue, oldest first.
        has_image: Whether an image comes before the dialogue.
        language: `zh` writes the turns as `问：...\n答：`, `en` as `Q:...\nA:`.

    Source: THUDM/visualglm-6b:modeling_chatglm.py (build_inputs_with_image, stream_chat) and
    THUDM/VisualGLM-6B:finetune_visualglm.py.
    """

    question: str
    history: tuple[tuple[str, str], ...] = ()
    has_image: bool = False
    language: Language = "zh"

    @property
    def before_image(self) -> str:
        """Text before the image slots; empty without an image."""
        return "<img>" if self.has_image else ""

    @property
    def after_image(self) -> str:
        """Text after the image slots, which is all there is without an image. The answer continues it."""
        ask, reply = ("Q:", "A:") if self.language == "en" else ("问：", "答：")
        turns = "".join(f"{ask}{question}\n{reply}{answer}\n" for question, answer in self.history)
        return f"{'</img>' if self.has_image else ''}{turns}{ask}{self.question}\n{reply}"


def clean_response(text: str) -> str:
    """Clean an answer as the original does: full-width punctuation next to Chinese characters, no outer white space.

    Args:
        text: Decoded answer.

    Returns:
        The answer to show and to score.

    Source: THUDM/visualglm-6b:modeling_chatglm.py (process_response).
    """
    text = text.strip().replace("[[训练时间]]", "2023年")
    return _BESIDE_CHINESE.sub(lambda match: _FULL_WIDTH[match.group()], text)
