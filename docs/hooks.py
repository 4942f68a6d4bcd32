"""What MkDocs calls while it builds the site: pages that lie outside docs/, and reference pages made of the code.

The notebooks are pages too: as `make notebooks` executed them, or where it did not, their text and code alone.
A page that links to a Markdown file elsewhere in the repository (`../../recipes/xray/README.md`) brings it into the
site; any other file that is linked to comes along as it is. A comment such as `<!-- made of: conf/method -->` is
replaced by what `MADE` makes. So the repository's files read the same with and without the site.
"""

import argparse
import importlib
import inspect
import json
import logging
import os.path
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jieba
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from vglm.config.comments import fields

jieba.setLogLevel(logging.WARNING)  # the search cuts Chinese into words with it
ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?!#|[a-z]+:)([^)#\s]+)(?=[)#])")
"""The target of a relative link, without its anchor."""
MARKER = re.compile(r"<!-- made of: (\w+)/?(\w*) -->")
NOISE = re.compile(
    r"\x1b\[[\d;]*m"  # a colour, as programs write it for a terminal
    r"|^ *[^\n]*\d%\|[^\n]*\n|^ *\[IPKernelApp\][^\n]*\n"  # a progress bar; the notebook's own remarks
    r"|^ *<div>\s*<progress.*?</table><p>\n",  # the table of losses that the trainer draws while it runs
    re.MULTILINE | re.DOTALL,
)
APART = re.compile(r"^(    .*)\n{3,}(?=    \S)", re.MULTILINE)
"""Two outputs of one cell, which nbconvert sets apart."""
PUBLIC = ("load_dataset", "load_pretrained")
"""Components that the Python page describes, under shorter names."""
PEFT = "https://huggingface.co/docs/peft/package_reference/"
PAGES = {
    "peft.LoraConfig": f"{PEFT}lora",
    "peft.AdaLoraConfig": f"{PEFT}adalora",
    "peft.IA3Config": f"{PEFT}ia3",
    "peft.PrefixTuningConfig": f"{PEFT}prefix_tuning",
    "peft.PromptEncoderConfig": f"{PEFT}p_tuning",
    "peft.PromptTuningConfig": f"{PEFT}prompt_tuning",
    "transformers.TrainingArguments": "https://huggingface.co/docs/transformers/main_classes/trainer",
}
"""Where other libraries describe the fields of their classes; each field has an anchor of its own there."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebooks, what pages link to outside docs/, and what those pages link to."""
    waiting = [file.src_uri for file in files.documentation_pages()]
    for file in notebooks(config):
        files.append(file)
    wanted = set(navigation(config.nav))
    while waiting or wanted:
        for target in wanted:
            uri = target.removeprefix("docs/")
            if files.get_file_from_path(uri) is None and (ROOT / uri).exists():
                files.append(File(uri, str(ROOT), config.site_dir, config.use_directory_urls))
                waiting += [uri] if uri.endswith(".md") else []
        wanted = linked(waiting.pop()) if waiting else set()
    return files


def notebooks(config: MkDocsConfig) -> Iterator[File]:
    """The page of each notebook, and its pictures where it was executed."""
    outputs = ROOT / "outputs"
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        executed = outputs / "notebooks" / f"{notebook.stem}.md"
        is_current = executed.is_file() and executed.stat().st_mtime >= notebook.stat().st_mtime
        text = executed_page(executed) if is_current else not_executed(notebook)
        yield File.generated(config, f"notebooks/{executed.name}", content=text)
        for path in sorted(executed.with_name(f"{notebook.stem}_files").glob("*")) if is_current else ():
            uri = path.relative_to(outputs).as_posix()
            yield File(uri, str(outputs), config.site_dir, config.use_directory_urls)


def executed_page(path: Path) -> str:
    """A notebook with its outputs, without what only moves while it runs."""
    return APART.sub(r"\1\n", NOISE.sub("", path.read_text(encoding="utf-8")))


def not_executed(notebook: Path) -> str:
    """The text and the code of a notebook, as Markdown."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    shown = [text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in parts]
    note = "*Without outputs: this site was built before `make notebooks`.*"
    return "\n\n".join([shown[0], note, *shown[1:]])


def navigation(entries: Any) -> Iterator[str]:
    """The pages that mkdocs.yml lists."""
    if isinstance(entries, str):
        yield entries
    for entry in entries if isinstance(entries, list) else []:
        for part in entry.values() if isinstance(entry, dict) else [entry]:
            yield from navigation(part)


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put in what is made of the code, and lead links to where files lie in the site."""
    here = page.file.src_uri

    def in_site(link: re.Match[str]) -> str:
        path = re.sub(r"\.ipynb$", ".md", repository_path(here, link[1]).removeprefix("docs/"))
        return os.path.relpath(path, os.path.dirname(here) or ".")

    return LINK.sub(in_site, MARKER.sub(lambda found: MADE[found[1]](found[2]), markdown))


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Say which pages are Chinese, in the page's code and above its contents."""
    if not page.file.src_uri.startswith("zh/"):
        return output
    return output.replace('<html lang="en"', '<html lang="zh"', 1).replace("Table of contents", "目录")


def linked(uri: str) -> set[str]:
    """The files, by their path in the repository, that a page of the site links to."""
    path = ROOT / "docs" / uri
    text = (path if path.exists() else ROOT / uri).read_text(encoding="utf-8")
    return {repository_path(uri, link) for link in LINK.findall(text)}


def repository_path(uri: str, link: str) -> str:
    """Where a link of a page leads in the repository."""
    own = f"docs/{uri}" if (ROOT / "docs" / uri).exists() else uri
    return os.path.normpath(os.path.join(os.path.dirname(own), link))


# --- conf/ ------------------------------------------------------------------------------------------------------------


def configs(group: str) -> str:
    """A section for each file of a folder of conf/, or for the files beside these folders."""
    return "\n\n".join(
        config_section(path) for path in sorted((ROOT / "conf" / group).glob("*.yaml"), reverse=not group)
    )


def config_section(path: Path) -> str:
    """A config file: what its comment says, what it builds, and each field with its default and comment."""
    text = path.read_text(encoding="utf-8")
    comment = re.match(r"(?:#.*\n)*", text)
    assert comment is not None
    head = [line[1:].removeprefix(" ") for line in comment[0].splitlines() if "@package" not in line]
    parts = [f"### {path.relative_to(ROOT).as_posix()}", _prose(head)]
    if target := (re.search(r"^_target_: (\S+)", text, re.MULTILINE) or [None, None])[1]:
        parts.append(f"Builds {_link(target)}.")
    if rows := [row for row in fields(text) if any(row[1:])]:  # of a part, its fields say all
        parts.append("\n".join(["| field | default | |", "|---|---|---|", *(_row(*row, str(target)) for row in rows)]))
    return "\n\n".join(part for part in parts if part)


def _prose(lines: list[str]) -> str:
    """A comment's sentences as a paragraph, its commands and settings as a block."""
    is_code = [re.match(r" *(python |torchrun |vglm |[\w.@]+=)", line) is not None for line in lines]
    prose = " ".join(line.strip() for line, code in zip(lines, is_code, strict=True) if not code)
    block = "\n".join(line.strip() for line, code in zip(lines, is_code, strict=True) if code)
    return "\n\n".join([*([_escaped(prose)] if prose else []), *([f"```text\n{block}\n```"] if block else [])])


def _row(name: str, default: str, comment: str, target: str) -> str:
    shown = f"[`{name}`]({PAGES[target]}#{target}.{name})" if target in PAGES else f"`{name}`"
    value = " ".join(default.split())
    words = comment or arguments(target).get(name, "")
    return f"| {shown} | {f'`{value}`' if value else ''} | {_escaped(words)} |".replace("`|`", "`&#124;`")


@cache
def arguments(target: str) -> dict[str, str]:
    """What the docstring of one of our components says of each argument, its first sentence."""
    module, _, name = target.rpartition(".")
    if not module.startswith("vglm."):
        return {}
    text = inspect.getdoc(getattr(importlib.import_module(module), name)) or ""
    section = re.search(r"^Args:\n((?:    .*\n)+)", f"{text}\n", re.MULTILINE)
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section[1], re.MULTILINE) if section else []
    return {argument: re.split(r"(?<=[.;]) ", " ".join(words.split()))[0].rstrip(".;") for argument, words in entries}


def _link(target: str) -> str:
    """A component's name, linked to its description where there is one."""
    if target in PAGES:
        return f"[`{target}`]({PAGES[target]}#{target}), all of whose fields can be given"
    name = target.rpartition(".")[2]
    shown = f"vglm.{name}" if name in PUBLIC else target
    return f"[`{shown}`][{shown}]" if target in described() else f"`{target}`"


def described() -> list[str]:
    """All that conf/ builds of the workbench's own."""
    texts = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "conf").rglob("*.yaml")))
    return sorted(set(re.findall(r"_target_: (vglm\.\S+)", texts)))


def components(_: str) -> str:
    """The docstring of each component, but for those that the Python page has."""
    shown = (name for name in described() if name.rpartition(".")[2] not in PUBLIC)
    options = "    options: {show_root_full_path: true, members: false}"
    return "\n\n".join(f"::: {name}\n{options}" for name in shown)


def _escaped(text: str) -> str:
    return re.sub(r"[<>|*{}]", lambda found: f"&#{ord(found[0])};", text)


# --- the command line, formats, metrics -------------------------------------------------------------------------------


def commands(_: str) -> str:
    """A section for each command of `vglm`, as its help has it."""
    from vglm.cli import command_line

    (subcommands,) = (each for each in command_line()._actions if isinstance(each, argparse._SubParsersAction))
    return "\n\n".join(_command(name, parser) for name, parser in subcommands.choices.items())


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    formatter = parser._get_formatter()
    rows = []
    for action in parser._actions:
        if action.help is argparse.SUPPRESS or action.dest == "help":
            continue
        shown = ", ".join(f"`{each}`" for each in action.option_strings) or f"`{action.metavar or action.dest}`"
        values = "" if action.nargs == 0 or not action.option_strings else formatter._format_args(action, action.dest)
        rows.append(f"| {shown}{f' `{values}`' if values else ''} | {_escaped(formatter._expand_help(action))} |")
    table = ["| option | |", "|---|---|", *rows] if rows else []
    example = (
        f"```bash\n{re.sub('^examples?: ', '', parser.epilog).replace('; ', chr(10))}\n```" if parser.epilog else ""
    )
    parts = [f"## vglm {name}", _escaped(parser.description or ""), example, "\n".join(table)]
    return "\n\n".join(part for part in parts if part)


def formats(_: str) -> str:
    """A row for each format that is read."""
    from vglm.data.readers import formats as known

    rows = (f"| `{name}` | {_escaped(reader.SCHEMA)} |" for name, reader in known().items())
    return "\n".join(["| format | what it looks like |", "|---|---|", *rows])


def metrics(_: str) -> str:
    """A row for each metric, with how it is computed."""
    from vglm.evaluation.score.metrics import ALL_METRICS

    rows = (f"| `{name}` | {each.title} | {_escaped(each.signature)} |" for name, each in ALL_METRICS.items())
    return "\n".join(["| metric | title | signature |", "|---|---|---|", *rows])


MADE: dict[str, Callable[[str], str]] = {
    "conf": configs,
    "components": components,
    "commands": commands,
    "formats": formats,
    "metrics": metrics,
}
"""Marker -> what makes its part of a page."""
