"""The prompt, under the name it had before it moved to `vglm.text`."""

from vglm.text.prompt import Prompt, clean_response

__all__ = ["Prompt", "clean_response"]
