"""What is done to a good input: to its bytes, to the tree of a JSON or YAML file, or to the file itself."""

import json
import os
import random
import re
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

_TOKENS = [
    *(b"", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xe2\x80\xae", b"{", b"]", b'"', b",", b"\n", b"\r", b"\t"),
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-1",
        b"0",
        b"1" * 400,
        b"9223372036854775808",
        b"-9223372036854775808",
        b"1e308",
    ),
    *(b"1e-320", b"null", b"true", b"../../etc/passwd", b"/dev/zero", b"<!ENTITY a 'b'>", b"&a;", b"[/b]", b"A" * 5000),
]
_NUMBERS = [0, 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), -1, 2**40]


def hostile_values() -> list[Any]:
    """What a tree, a setting or an override may be given in place of what it should have."""
    deep: Any = "bottom"
    for _ in range(700):
        deep = [deep]
    numbers = [0, -1, 1, 3.5, 10**12, 10**40, 10**400, 1e308, float("nan"), float("inf"), -float("inf")]
    names = ["../../../etc/passwd", "/dev/zero", "/etc/passwd", "http://x/y", "file:///etc/passwd", "a\0b"]
    texts = [
        "",
        " ",
        "\0",
        "\ud800",
        "x" * 100_000,
        "é" * 300,
        "\u202e",
        "\n\n",
        "-",
        "NaN",
        "1e999",
        "0x10",
        "١٢",
        "True",
    ]
    marks = ["[/b]", "[red]", "${oc.env:HOME}", "<script>alert(1)</script>", "(a+)+$", "%s%n"]
    trees = [[], {}, [[]], [None], [{}], {"": None}, ["x"] * 1000, {"a": {"b": {"c": 1}}}, deep]
    calls = [{"_target_": "os.system", "_args_": ["true"]}]
    return [None, True, False, *numbers, *names, *texts, *marks, *trees, *calls]


def mutate_bytes(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """One to four changes of a file's bytes."""
    changed, done = bytearray(content), []
    for _ in range(rng.choice((1, 1, 2, 4))):
        size = len(changed)
        position = rng.randrange(size) if size else 0
        match rng.choice(("flip", "insert", "delete", "set", "copy", "roll", "token", "cut", "number", "word", "word")):
            case "flip" if size:
                changed[position] ^= 1 << rng.randrange(8)
                done.append(f"flip {position}")
            case "insert":
                changed[position:position] = rng.randbytes(rng.choice((1, 4, 64)))
                done.append(f"insert {position}")
            case "delete":
                del changed[position : position + rng.choice((1, 2, 8, 100))]
                done.append(f"delete {position}")
            case "set" if size:
                changed[position] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
                done.append(f"set {position}")
            case "copy" if size:
                piece = changed[position : position + rng.choice((4, 16, 200))]
                target = rng.randrange(size)
                changed[target : target + rng.choice((0, len(piece)))] = piece
                done.append(f"copy {position} to {target}")
            case "roll" if size:
                changed = changed[position:] + changed[:position]
                done.append(f"roll {position}")
            case "token":
                token = rng.choice(_TOKENS)
                changed[position : position + rng.choice((0, len(token)))] = token
                done.append(f"token {token[:12]!r} at {position}")
            case "cut":
                del changed[position:]
                done.append(f"cut at {position}")
            case "number" if size >= 8:
                form = rng.choice(("<i", "<q", ">i", "<h", ">h"))
                value = rng.choice(_NUMBERS) & ((1 << 8 * struct.calcsize(form)) - 1)
                raw = value.to_bytes(struct.calcsize(form), "little" if form[0] == "<" else "big")
                position -= position % len(raw) if rng.random() < 0.7 else 0
                changed[position : position + len(raw)] = raw
                done.append(f"number {value} at {position}")
            case "word":
                words = list(re.finditer(rb"[\w.+-]+", changed))
                if words:
                    word, token = rng.choice(words), rng.choice(_TOKENS)
                    changed[word.start() : word.end()] = token
                    done.append(f"word {word.start()} to {token[:12]!r}")
    return bytes(changed), ", ".join(done)


def mutate_tree(rng: random.Random, tree: Any) -> tuple[Any, str]:
    """One or two changes of a tree of lists and dictionaries, which is changed in place."""
    done = []
    for _ in range(rng.choice((1, 1, 2))):
        containers = list(_containers(tree))
        if not containers:
            return rng.choice(hostile_values()), "all of it"
        owner, key = rng.choice(containers)
        value = rng.choice(hostile_values())
        match rng.choice(("replace", "replace", "replace", "delete", "rename", "deepen", "repeat")):
            case "delete":
                del owner[key]
            case "rename" if isinstance(owner, dict):
                owner[str(value)[:300]] = owner.pop(key)
            case "deepen":
                owner[key] = rng.choice(([owner[key]], {str(key): owner[key]}))
            case "repeat" if isinstance(owner, list):
                owner += [owner[key]] * rng.choice((1, 50))
            case _:
                owner[key] = value
        done.append(f"{str(key)[:40]!r} to {str(value)[:40]!r}")
    return tree, ", ".join(done)


def _containers(tree: Any) -> Any:
    items = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    for key, value in items:
        yield tree, key
        yield from _containers(value)


def mutate_in_place(rng: random.Random, path: Path) -> str:
    """Put something else where a file is."""
    path.unlink()
    kind = rng.choice(("fifo", "endless", "folder", "missing", "empty", "long name", "loop", "socket", "unreadable"))
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "empty":
            path.write_bytes(b"")
        case "long name":
            path.with_name("n" * 240 + path.suffix).write_bytes(b"x")
        case "loop":
            path.symlink_to(path.name)
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                here = os.getcwd()
                try:
                    os.chdir(path.parent)  # a socket's path may have 107 bytes
                    bound.bind(path.name)
                except OSError:
                    path.mkdir()
                finally:
                    os.chdir(here)
        case "unreadable":
            path.write_bytes(b"")
            path.chmod(0)
    return kind


def mutate_folder(rng: random.Random, folder: Path) -> str:
    """Change one file of a folder, or two.

    Returns:
        What was done.
    """
    done = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        if not files:
            break
        texts = [
            file for file in files if file.suffix in _TREES or file.suffix in (".csv", ".tsv", ".txt", ".xml", ".index")
        ]
        file = rng.choice(texts if texts and rng.random() < 0.6 else files)
        name = str(file.relative_to(folder))[:60]
        if rng.random() < 0.12:
            done.append(f"{name}: {mutate_in_place(rng, file)}")
            continue
        read_write = _TREES.get(file.suffix)
        if read_write is not None and rng.random() < 0.6:
            try:
                tree, what = mutate_tree(rng, read_write[0](file.read_text(encoding="utf-8")))
                written = read_write[1](tree).encode("utf-8", "surrogatepass")
                done.append(f"{name}: {what}")
                file.write_bytes(written)
                continue
            except (ValueError, RecursionError, yaml.YAMLError, UnicodeError):
                pass
        changed, what = mutate_bytes(rng, file.read_bytes())
        file.write_bytes(changed)
        done.append(f"{name}: {what}")
    return "; ".join(done)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder, its links as links and its pipes as pipes."""
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    for entry in sorted(source.rglob("*")):
        copy = target / entry.relative_to(source)
        if entry.is_symlink():
            copy.symlink_to(os.readlink(entry))
        elif entry.is_dir():
            copy.mkdir(exist_ok=True)
        elif entry.is_fifo():
            os.mkfifo(copy)
        elif entry.is_file():
            shutil.copy2(entry, copy)


def _lines(text: str) -> Any:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _as_lines(rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows) if isinstance(rows, list) else json.dumps(rows)


_TREES: dict[str, tuple[Callable[[str], Any], Callable[[Any], str]]] = {
    ".json": (json.loads, json.dumps),
    ".jsonl": (_lines, _as_lines),
    ".yaml": (yaml.safe_load, yaml.safe_dump),
}
