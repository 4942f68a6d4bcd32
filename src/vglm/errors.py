"""The workbench's exceptions.

```
WorkbenchError              anything a user can put right; the command line prints it and exits with 2
├── ConfigError             a config key, value or combination
├── DataError               a dataset file, row or image
├── CheckpointError         a base model's folder, file or tensor
├── AdapterError            an adapter folder, or an adapter and a base that do not fit each other
├── CacheError              a cache that cannot be written; what it would have saved is done again
└── BusyError               more requests at once than a server takes; the same request may go through later
```

A message says where, what was expected, what was found and what to do. Programming mistakes stay Python's own.
"""

import os

LONGEST_MESSAGE = 990
"""Characters of a message on the command line; a damaged file of megabytes must not be quoted in full."""
_LONGEST_END = 300


class WorkbenchError(Exception):
    """Base class: something in the input is wrong, and the message says how to fix it."""


class ConfigError(WorkbenchError):
    """A config key, value or combination of values that cannot work."""


class DataError(WorkbenchError):
    """A dataset file, row or image that cannot be used."""


class CheckpointError(WorkbenchError):
    """A model folder, weight file or tensor that is missing, damaged or of the wrong shape."""


class AdapterError(WorkbenchError):
    """An adapter folder that cannot be read, or that does not fit the base model."""


class CacheError(WorkbenchError):
    """A cache that cannot be written; callers warn and continue without it."""


class BusyError(WorkbenchError):
    """More requests than the engine takes at once."""


def message_of(error: BaseException) -> str:
    """What the command line prints of an error, at most `LONGEST_MESSAGE` characters that any terminal can show.

    Of a longer one the middle is left out: it begins with where, and ends with what to do.
    """
    text = str(error).encode("utf-8", errors="replace").decode("utf-8")
    text = "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    if len(text) <= LONGEST_MESSAGE:
        return text
    left_out = f" ... ({len(text):,} characters) ... "
    return text[: LONGEST_MESSAGE - _LONGEST_END - len(left_out)] + left_out + text[-_LONGEST_END:]


def brief(error: BaseException, length: int = 200) -> str:
    """A library's reason on one line without a full stop, to be quoted in a message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= length else f"{text[:length]}...").rstrip(".")


def typed(name: str) -> str:
    """How `train` or `evaluate` is called here: by its script if that exists, else as a command of `vglm`."""
    return f"python {name}.py" if os.path.isfile(f"{name}.py") else f"vglm {name}"
