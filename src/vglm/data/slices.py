"""A picture inside a larger file: a tar shard, an Arrow table, a cell of a TSV.

ImageSlice(Path("shard-000.tar"), offset=1536, size=20_480).read_bytes()     the encoded picture
"""

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from vglm.errors import DataError

LARGEST_ENCODED_BYTES = 1 << 30
"""A picture with more bytes than that, before it is decoded, is none."""


@dataclass(frozen=True, slots=True)
class ImageSlice:
    """An encoded picture inside a larger file (a tar shard, an Arrow table, a cell of a TSV), left where it lies.

    Attributes:
        file: The larger file.
        offset: Where in it the picture's first byte is.
        size: How many bytes the picture has there.
        is_base64: Whether these bytes are the picture written in base64.
    """

    file: Path
    offset: int
    size: int
    is_base64: bool = False

    def read_bytes(self) -> bytes:
        """Read the encoded picture.

        Returns:
            The `size` bytes; decoded if they are base64.

        Raises:
            DataError: The file cannot be read, or ends before the picture does, or the bytes are not base64.
        """
        if not 0 <= self.size <= LARGEST_ENCODED_BYTES or self.offset < 0:
            raise DataError(f"image {self} cannot be one: it has {self.size:,} bytes. Restore {self.file}.")
        if os.path.exists(self.file) and not os.path.isfile(self.file):
            raise DataError(f"image {self} cannot be read: {self.file} is no regular file. Restore it.")
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise DataError(f"image {self} cannot be read: {error.strerror}. Restore {self.file}.") from error
        if len(content) < self.size:
            raise DataError(f"image {self} is cut off: {self.file} is shorter than when it was read first. Restore it.")
        if not self.is_base64:
            return content
        try:
            return base64.b64decode(content, validate=True)
        except ValueError as error:
            raise DataError(f"image {self} is not base64: {error}. Restore {self.file}.") from error

    def __str__(self) -> str:
        return f"{self.file}[{self.offset}:{self.offset + self.size}]"
