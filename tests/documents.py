"""The documents of the repository, the commands and links in them, and whether such a command could be typed."""

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf

from vglm.cli import command_line
from vglm.config import check_config, compose, repo_root, take_from_run
from vglm.evaluation.score.settings import spell_out

ROOT = repo_root()
PATTERNS = ("*.md", "docs/**/*.md", "recipes/*/*.md", "conf/**/*.md", "data/**/*.md", "skills/**/*.md")
PAST = ("CHANGELOG.md",)
"""Documents that tell of earlier versions: their links are checked, their commands are not."""
ELSEWHERE = {"curl", "docker", "export", "git", "sbatch", "serve", "source", "sudo", "tensorboard"}
"""Programs that are not ours."""
PLACEHOLDER = re.compile(r"<[^<>\n]*>")
COMMAND = re.compile(r"(?:python |vglm |torchrun |make )")


def documents() -> list[Path]:
    """Every Markdown file that is a document."""
    return sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern)})


def commands(text: str) -> Iterator[str]:
    """The commands of a document, each on one line: of its shell blocks, and of its sentences."""
    blocks = re.findall(r"^( *)```(?:bash|sh|shell)\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    for _, block in blocks:
        for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
            if line.strip() and not line.strip().startswith("#"):
                yield line.strip()
    prose = _without_theirs(re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))
    for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose):
        if COMMAND.match(code) and not re.fullmatch(r"(?:vglm|make|python) [\w.-]+", code):
            yield " ".join(code.split())


def _without_theirs(text: str) -> str:
    """A document without what is typed in other programs: the first column of tables that translate."""
    lines, is_theirs = [], False
    for line in text.splitlines():
        begins = re.match(r"\| (there|原来|VisualGLM-6B) \|", line) is not None
        is_theirs = begins or (is_theirs and line.startswith("|"))
        lines.append(re.sub(r"^\|[^|]*\|", "|", line) if is_theirs else line)
    return "\n".join(lines)


def check(command: str) -> None:
    """Parse, or compose, a command without running it.

    Raises:
        AssertionError: There is no such command, option, setting, file or target.
        ConfigError: The config has no such setting, or it takes no such value.
    """
    typed = re.sub(r"\$\w+", "1", PLACEHOLDER.sub("somewhere", command))
    typed = re.sub(r"=\.\.\.(?=\s|$)", "=somewhere", typed)
    words = [word for word in shlex.split(typed, comments=True) if "..." not in word and "…" not in word]
    while words and re.fullmatch(r"\w+=\S*", words[0]):  # an environment variable
        words = words[1:]
    for part in _parts(words):
        _check_one(part)


def _parts(words: list[str]) -> Iterator[list[str]]:
    """What stands between `&&`, `;` and `|`."""
    part: list[str] = []
    for word in words:
        if word in ("&&", ";", "|", ">", ">>"):
            yield part
            part = []
        else:
            part.append(word)
    yield part


def _check_one(words: list[str]) -> None:
    match words:
        case [] | ["pip", "freeze"]:
            return
        case ["torchrun", *rest]:
            while rest and rest[0].startswith("--"):
                rest = rest[1:] if "=" in rest[0] else rest[2:]
            _check_one(["python", *rest] if rest else [])
        case ["srun", *rest]:
            _check_one(rest)
        case ["python" | "python3", "-m", "pip", *rest] | ["pip", *rest]:
            _check_installation(rest)
        case ["python", "-m", "pytest", *rest]:
            assert all((ROOT / word).exists() for word in rest if word.startswith("tests")), words
        case ["python", "-m", "vglm", *rest] | ["vglm", *rest]:
            _check_vglm(rest)
        case ["python", "-m", "lmms_eval", *_]:
            return
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module) is not None, f"no module {module}"
        case ["python", "train.py" | "evaluate.py" as script, *rest]:
            check_overrides(script.removesuffix(".py"), rest)
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), f"no file {script}"
        case ["make", *rest]:
            targets = {
                target.rstrip(":") for target in re.findall(r"^[a-z]+:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            }
            assert {word for word in rest if "=" not in word} <= targets, f"no such target: {words}"
        case [program, *_]:
            assert program in ELSEWHERE or program == "pre-commit", f"unknown program {program}"


def _check_vglm(words: list[str]) -> None:
    if words[:1] == ["somewhere"]:
        return
    if words and words[0] in ("train", "evaluate"):
        check_overrides(words[0], words[1:])
        return
    try:
        command_line().parse_args(words)
    except SystemExit as end:
        if end.code:  # --help and --version end without one
            raise AssertionError(f"vglm {shlex.join(words)}: no such command or option") from None


def _check_installation(words: list[str]) -> None:
    """Extras are those of pyproject.toml."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for names in re.findall(r"^\.\[(.*)\]$", "\n".join(words), re.MULTILINE):
        assert set(names.split(",")) <= extras.keys(), f"no extra {names}"


def check_overrides(config_name: str, words: list[str]) -> None:
    """Compose what follows train.py or evaluate.py, and check it as these do; of a sweep, its first run."""
    overrides = [word for word in words if not word.startswith("-")]
    if "--allow-target" in words:
        overrides = [override for override in overrides if override != words[words.index("--allow-target") + 1]]
        overrides = [override for override in overrides if not override.startswith(("metrics.names", "metrics.custom"))]
    if "--cfg" in words:
        overrides.remove(words[words.index("--cfg") + 1])
    if "-m" in words or any(word.startswith("protocol=") for word in words):
        overrides = [re.sub(r"^([\w.]+=)(?:choice\()?([^,\[{(]+),.*$", r"\1\2", override) for override in overrides]
        plugins = ("hydra/launcher=", "hydra/sweeper=", "hydra.sweeper.")  # which need not be installed
        overrides = [override for override in overrides if not override.startswith(plugins)]
    if any(override.startswith("protocol=") for override in overrides):
        overrides.append("output_dir=somewhere")  # a sweep names its runs
    if any(override.startswith("hydra.searchpath") for override in overrides):
        return  # where a file would lie that is not here
    if overrides[:1] and overrides[0].endswith((".yaml", ".yml")) and "=" not in overrides[0]:
        overrides = overrides[1:]  # a file of the reader's
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} | {"recipes"}
    overrides = [
        override
        for override in overrides
        if not (override.endswith("=somewhere") and override.partition("=")[0] in groups)
    ]
    _check_config(config_name, tuple(overrides))


@cache
def _check_config(config_name: str, overrides: tuple[str, ...]) -> None:
    cfg = compose(config_name, overrides)
    if config_name == "evaluate":
        take_from_run(cfg, _trained() if cfg.run else {})
        cfg.metrics = spell_out(cfg.metrics)
    check_config(cfg, config_name)


@cache
def _trained() -> dict[str, object]:
    """What an evaluation takes from the config of a run."""
    cfg = compose("train", ["recipes=background/lora"])
    return {name: OmegaConf.to_container(cfg[name], resolve=True) for name in ("model", "dataset", "metrics")}


# --- links ------------------------------------------------------------------------------------------------------------


def links(text: str) -> Iterator[tuple[str, str]]:
    """Relative links of a document: path, empty for one within it, and anchor."""
    prose = re.sub(r"^ *```.*?^ *```|`[^`\n]+`", "", text, flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a document's headings, as GitHub and the site make them."""
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return frozenset(
        re.sub(r"[^\w\- ]", "", title.replace("`", "").strip().lower()).replace(" ", "-") for title in titles
    )
