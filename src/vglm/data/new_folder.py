"""A folder that is written whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vglm.errors import DataError


def check_new(folder: Path) -> None:
    """Refuse a place that holds something.

    Raises:
        DataError: `folder` is a file, or a folder with something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not an empty folder. Remove it first, or choose another.")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder under another name and rename it at the end.

    Args:
        folder: Must not exist or be empty; its parents are made.

    Yields:
        The folder to write to; after an error nothing of it is left.

    Raises:
        DataError: `folder` holds something already, or cannot be written.
    """
    check_new(folder)
    staging = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        yield staging
        staging.chmod(0o755)
        staging.replace(folder)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{folder} cannot be written: {reason}. Make room, or choose another.") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
