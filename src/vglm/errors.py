"""The workbench's exceptions.

```
WorkbenchError              anything a user can put right; the command line prints it and exits with 2
├── ConfigError             a config key, value or combination
├── DataError               a dataset file, row or image
├── CheckpointError         a base model's folder, file or tensor
└── AdapterError            an adapter folder, or an adapter and a base that do not fit each other
```

A message says where, what was expected, what was found and what to do. Programming mistakes stay Python's own.
"""


class WorkbenchError(Exception):
    """Base class: something in the input is wrong, and its message says how to mend it."""


class ConfigError(WorkbenchError):
    """A config key, value or combination of values that cannot work."""


class DataError(WorkbenchError):
    """A dataset file, row or image that cannot be used."""


class CheckpointError(WorkbenchError):
    """A model folder, weight file or tensor that is missing, damaged or of the wrong shape."""


class AdapterError(WorkbenchError):
    """An adapter folder that cannot be read, or that does not fit the base model."""
