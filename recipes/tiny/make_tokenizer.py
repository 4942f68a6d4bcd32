"""Make the tiny model's tokenizer from everything the scene world can say.

python recipes/tiny/make_tokenizer.py data/visualglm_tiny
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from vglm.model.tokenization import VisualGlmTokenizer
from vglm.text.prompt import LANGUAGES, Prompt
from vglm.worlds.pretraining import corpus_lines
from vglm.worlds.questions import characters
from vglm.worlds.tokenizer_training import build_sentencepiece_model

VOCABULARY = 4608


def texts() -> Iterator[str]:
    """Questions and answers as frequent as in pre-training, and the frame that a prompt puts around them."""
    for number, text in enumerate(corpus_lines()):
        frame = Prompt("", (), has_image=True, language=LANGUAGES[number % 2])
        yield from (text, frame.before_image, frame.after_image)


def main() -> None:
    """Write `ice_text.model` and its tokenizer config."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write ice_text.model and tokenizer_config.json")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    pieces = build_sentencepiece_model(texts(), characters(), VOCABULARY, folder / "ice_text.model")
    VisualGlmTokenizer(str(folder / "ice_text.model")).save_pretrained(folder)
    print(f"{folder}: {pieces} pieces")


if __name__ == "__main__":
    main()
