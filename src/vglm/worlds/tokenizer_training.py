"""Make a SentencePiece model in the conventions of VisualGLM's `ice_text.model`, for checkpoints of other sizes.

Its pieces, in the original's order:

    <unk> <s> </s> <pad> <n> | characters and words | [MASK] ... <dBLOCK> | <|tab|> <|blank_2|> ... <|blank_80|> | bytes

It is a unigram model whose scores are plain log frequencies: Chinese is read character by character, a common English
word as one piece, a rare one letter by letter. So a small model sees every piece often, and a Chinese word that is not
in its training text is made of known pieces. (SentencePiece's own trainer finds poor words in text made by templates.)
"""

import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sentencepiece import SentencePieceNormalizer, sentencepiece_model_pb2

from vglm.files import write_bytes
from vglm.text.pieces import WHITE_SPACE_PIECES
from vglm.text.prompt import Prompt

_Model = sentencepiece_model_pb2.ModelProto  # type: ignore[attr-defined]
_Kind = _Model.SentencePiece

LINE_BREAK, *BLANKS = WHITE_SPACE_PIECES
HEAD = (
    ("<unk>", _Kind.UNKNOWN),
    *((name, _Kind.CONTROL) for name in ("<s>", "</s>", "<pad>")),
    (LINE_BREAK, _Kind.USER_DEFINED),
)
CONTROL_PIECES = ("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
TAIL = (
    *((name, _Kind.CONTROL) for name in CONTROL_PIECES),
    *((name, _Kind.USER_DEFINED) for name in BLANKS),
    *((f"<0x{byte:02X}>", _Kind.BYTE) for byte in range(256)),
)

UNSEEN_STEP = 1e-4
"""Each character that no line holds scores this much below the one before it, as in SentencePiece's own models."""

_WORD = re.compile("▁?[A-Za-z]{2,}|▁[A-Za-z]")


def build_sentencepiece_model(
    lines: Iterable[str], characters: Iterable[str], vocab_size: int, output_path: str | Path
) -> int:
    """Write a SentencePiece model; the same input gives the same file, byte for byte.

    Args:
        lines: Questions and answers. Each counts twice: as it is, and as the question of a prompt, where its first word
            has no blank before it.
        characters: Characters that must be pieces whether or not a line has them, besides those of the lines. All are
            taken as SentencePiece normalises them (NFKC: a full-width comma becomes a comma).
        vocab_size: Most pieces the model may have, all kinds together. What characters and fixed pieces leave goes to
            the most frequent words.
        output_path: File to write.

    Returns:
        Number of pieces of the model, at most `vocab_size`.

    Raises:
        ValueError: `vocab_size` has no room for all characters.
    """
    normaliser = SentencePieceNormalizer(
        rule_name="nmt_nfkc", add_dummy_prefix=True, escape_whitespaces=True, remove_extra_whitespaces=True
    )
    texts = (text for line in lines for text in (line, _in_prompt(line)))
    normal = (normaliser.normalize(text.replace("\n", LINE_BREAK)) for text in texts)
    parts = [part for text in normal for part in text.split(LINE_BREAK)]
    counts = Counter("".join(parts))
    required = {"▁", *"".join(map(normaliser.normalize, characters))}
    counts.update(dict.fromkeys(required - set(counts), 0))
    room = vocab_size - len(HEAD) - len(counts) - len(TAIL)
    if room < 0:
        raise ValueError(
            f"vocab_size {vocab_size} is too small: {len(counts)} characters need {vocab_size - room} pieces."
        )
    words = Counter(word for part in parts for word in _WORD.findall(part))
    counts.update(dict(sorted(words.items(), key=_rank)[:room]))

    body, score, total = [], 0.0, counts.total() + 1
    for name, count in sorted(counts.items(), key=_rank):
        score = math.log(count / total) if count else score - UNSEEN_STEP
        body.append((name, _Kind.NORMAL, score))

    model = _Model.FromString(normaliser.serialized_model_proto())
    for name, kind, score in (*((*piece, 0.0) for piece in HEAD), *body, *((*piece, 0.0) for piece in TAIL)):
        model.pieces.add(piece=name, type=kind, score=score)
    spec = model.trainer_spec
    spec.model_type, spec.vocab_size = spec.UNIGRAM, len(model.pieces)
    spec.byte_fallback = spec.split_digits = True
    spec.unk_id, spec.bos_id, spec.eos_id, spec.pad_id = range(4)
    spec.user_defined_symbols.append(LINE_BREAK)
    write_bytes(Path(output_path), model.SerializeToString(deterministic=True))
    return len(model.pieces)


def _rank(item: tuple[str, int]) -> tuple[int, str]:
    """Sort (piece, count) by falling count, then by name."""
    return -item[1], item[0]


def _in_prompt(line: str) -> str:
    return Prompt(line, has_image=True, language="en" if line.isascii() else "zh").after_image
