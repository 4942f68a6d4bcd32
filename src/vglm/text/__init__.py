"""What becomes of texts before there is any tensor: the prompt and the pieces it is cut into. No torch is needed."""
