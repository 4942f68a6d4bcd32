"""API keys of clients, stored as hashes.

key = add_key(Path("keys.txt"))                      printed once; the file keeps its SHA-256
is_known("Bearer sk-vglm-…", read_keys(Path("keys.txt")))
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from pathlib import Path

from vglm.errors import ConfigError
from vglm.files import read_text, write_text

_HASH = re.compile(r"[0-9a-f]{64}")


def new_key() -> tuple[str, str]:
    """A random key, and its hash."""
    key = f"sk-vglm-{secrets.token_urlsafe(32)}"  # long and random, so a plain hash cannot be inverted
    return key, _hash(key)


def add_key(path: Path) -> str:
    """Make a key and add its hash to a file, which is made if it is not there.

    Raises:
        ConfigError: The file holds other things, or cannot be written.
    """
    hashes = read_keys(path) if path.exists() else []
    key, its_hash = new_key()
    write_text(path, "".join(f"{line}\n" for line in (*hashes, its_hash)), error=ConfigError)
    return key


def read_keys(path: Path) -> list[str]:
    """The hashes of a file, one a line; lines that begin with # are comments.

    Raises:
        ConfigError: The file cannot be read, or a line is not a hash.
    """
    text = read_text(path, error=ConfigError, advice="Make one with vglm api --new-key.", limit=2**20)
    lines = [line.strip() for line in text.splitlines()]
    hashes = [line for line in lines if line and not line.startswith("#")]
    if not hashes or not all(map(_HASH.fullmatch, hashes)):
        raise ConfigError(f"{path} must hold SHA-256 hashes of keys, one a line. Make one with vglm api --new-key.")
    return hashes


def is_known(header: str | None, hashes: Collection[str]) -> bool:
    """Whether an Authorization header shows one of the keys; takes as long for a wrong one as for a right one."""
    scheme, _, key = (header or "").partition(" ")
    digest = _hash(key.strip())
    matches = [hmac.compare_digest(digest, stored) for stored in hashes]
    return scheme.lower() == "bearer" and any(matches)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", errors="replace")).hexdigest()
