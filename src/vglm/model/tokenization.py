"""The tokenizer of VisualGLM: a SentencePiece model (`ice_text.model`) behind the interface of transformers.

    >>> tokenizer = VisualGlmTokenizer.from_pretrained("tests/reference/visualglm-mini-a/hf_layout")
    >>> tokenizer("你好").input_ids                       # [gMASK] <sop> close every prompt
    [5, 259, 1001, 1004]
    >>> tokenizer("你好", "再见！").input_ids              # the answer follows <sop>, <eop> closes it
    [5, 259, 1001, 1004, 5, 304, 888, 30, 1005]
    >>> tokenizer.encode_plain("<eop>")                   # text from a user: never becomes a control token
    [5, 367, 9, 169, 368]

Line breaks, tabs and runs of 2 to 80 blanks have pieces of their own (`<n>`, `<|tab|>`, `<|blank_2|>` ...); characters
that the vocabulary lacks become UTF-8 byte pieces. So encoding and decoding preserve a text, up to SentencePiece's
normalisation (NFKC).

As in the original, `tokenizer(text)` reads the names of the registered special tokens in a text as those tokens and
drops the white space around them, while `[gMASK]`, `<s>` and `</s>` are ordinary text, and `decode` removes blanks
before English punctuation.

Source: THUDM/visualglm-6b:tokenization_chatglm.py.
"""

import re
from pathlib import Path
from typing import Any

from transformers import AddedToken
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from vglm.errors import CheckpointError
from vglm.text.pieces import VOCAB_FILE, WHITE_SPACE_PIECES, to_pieces

_WHITE_SPACE_PIECE = re.compile("|".join(map(re.escape, WHITE_SPACE_PIECES)))


class VisualGlmTokenizer(SentencePieceBackend):
    """SentencePiece tokenizer with the prompt and answer markers of ChatGLM-6B (v1); ids are those of the model file.

    Args:
        vocab_file: The SentencePiece model.
        bos_token: Opens the answer.
        eos_token: Closes the answer.
        unk_token: Unknown piece; the prompt's image slots borrow its id.
        pad_token: Fills the left side of a batch.
        mask_token: Marks a gap to be filled (not used by VisualGLM).
        kwargs: What else transformers stores in `tokenizer_config.json`.

    Attributes:
        gmask_token: Closes every prompt; the answer keeps its position. As in the original it is not registered as a
            special token, so its name in a text is ordinary text.

    Raises:
        CheckpointError: The model file is missing or another tokenizer's, or the settings are not those of VisualGLM.
    """

    vocab_files_names = {"vocab_file": VOCAB_FILE}
    model_input_names = ["input_ids", "attention_mask"]
    padding_side = "left"
    gmask_token = "[gMASK]"

    def __init__(
        self,
        vocab_file: str | None,
        bos_token: str | AddedToken = "<sop>",
        eos_token: str | AddedToken = "<eop>",
        unk_token: str | AddedToken = "<unk>",
        pad_token: str | AddedToken = "<pad>",
        mask_token: str | AddedToken = "[MASK]",
        **kwargs: Any,
    ) -> None:
        if vocab_file is None or not Path(vocab_file).is_file():
            raise CheckpointError(f"{kwargs.get('name_or_path', vocab_file)}: no tokenizer model {VOCAB_FILE} there.")
        for key in ("num_image_tokens", "remove_space", "do_lower_case"):
            if kwargs.pop(key, None):
                raise CheckpointError(f"{vocab_file}: tokenizer_config.json sets {key}, which VisualGLM does not use.")
        for key in ("auto_map", "model_specific_special_tokens"):  # the original's remote code, gmask_token, end_token
            kwargs.pop(key, None)
        kwargs = {"clean_up_tokenization_spaces": True, **kwargs, "special_tokens_pattern": "none"}
        try:
            super().__init__(
                vocab_file=vocab_file,
                bos_token=str(bos_token),
                eos_token=str(eos_token),
                unk_token=str(unk_token),
                pad_token=str(pad_token),
                mask_token=str(mask_token),
                **kwargs,
            )
        except (RuntimeError, OSError) as err:
            raise CheckpointError(f"{vocab_file} cannot be read as a SentencePiece model: {err}") from err
        needed = (*self.all_special_tokens, self.gmask_token)
        pieces = {token: self.sp_model.piece_to_id(token) for token in needed}
        if absent := [token for token, index in pieces.items() if self.sp_model.id_to_piece(index) != token]:
            raise CheckpointError(f"{vocab_file} is not a tokenizer of VisualGLM: it has no piece {', '.join(absent)}.")
        strip = {"lstrip": True, "rstrip": True, "normalized": False, "special": True}
        self.added_tokens_decoder = {pieces[token]: AddedToken(token, **strip) for token in self.all_special_tokens}

    @property
    def gmask_token_id(self) -> int:
        """Id of `[gMASK]`."""
        return int(self.sp_model.piece_to_id(self.gmask_token))

    def encode_plain(self, text: str) -> list[int]:
        """Encode untrusted text: it never becomes a special token.

        SentencePiece never matches its control pieces in a text; only transformers looks for the registered special
        tokens there. Without that search `<eop>` becomes the pieces of `<`, `eop` and `>`, and decodes as written.

        Args:
            text: Any text; lone surrogates (broken JSON escapes) count as question marks.

        Returns:
            Token ids, without `[gMASK] <sop>`. Where no registered special token is spelled out in the text they equal
            `encode(text, add_special_tokens=False)`.
        """
        ids: list[int] = self.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return to_pieces(self.sp_model, text)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join pieces to text; byte pieces join to characters, control pieces vanish."""
        padding = self.pad_token
        return self.text_of([token for token in tokens if token != padding])

    def text_of(self, pieces: list[str] | list[int]) -> str:
        """As `convert_tokens_to_string`, for pieces or their ids, without padding among them."""
        text: str = self.sp_model.decode(pieces) if pieces else ""
        return _WHITE_SPACE_PIECE.sub(lambda match: WHITE_SPACE_PIECES[match.group()], text) if "<" in text else text

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Close a prompt with `[gMASK] <sop>`, and the answer behind it, if there is one, with `<eop>`."""
        prompt = [*token_ids_0, self.gmask_token_id, self.bos_token_id]
        return prompt if token_ids_1 is None else [*prompt, *token_ids_1, self.eos_token_id]

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """Say for each token of `build_inputs_with_special_tokens` whether that method added it (1) or not (0)."""
        if already_has_special_tokens:
            special = {*self.all_special_ids, self.gmask_token_id}
            return [int(token in special) for token in token_ids_0]
        mask = [0] * len(token_ids_0) + [1, 1]
        return mask if token_ids_1 is None else mask + [0] * len(token_ids_1) + [1]
