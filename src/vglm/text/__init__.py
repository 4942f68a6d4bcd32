"""Text processing before any tensor: the prompt, and its SentencePiece pieces. No torch is needed."""
