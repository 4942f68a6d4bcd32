"""Completion of `vglm` for bash and zsh, made from its own parser by shtab.

    vglm completion bash > ~/.local/share/bash-completion/completions/vglm
    vglm completion zsh > "${fpath[1]}/_vglm"

Of `vglm train` and `vglm evaluate`, whose arguments are overrides, `<group>=` and its choices are completed.
"""

import argparse
from typing import Any, Literal

import shtab

from vglm.config import repo_root
from vglm.config.overrides import top_level_keys
from vglm.listing import choices

_BASH = """
_vglm_{name}_overrides() {{
  # bash takes `=` for the end of a word: of `recipes=back` the last word is `back`
  local words="{words}" stem="$1"
  if [[ "$1" == "=" ]]; then stem=""; fi
  if [[ "$1" == "=" || "${{COMP_WORDS[COMP_CWORD-1]}}" == "=" ]]; then
    local key="${{COMP_WORDS[COMP_CWORD-1]}}"
    if [[ "$key" == "=" ]]; then key="${{COMP_WORDS[COMP_CWORD-2]}}"; fi
    compgen -W "$(printf '%s\\n' $words | sed -n "s|^$key=||p")" -- "$stem"
  else
    compopt -o nospace 2>/dev/null
    compgen -W "$(printf '%s\\n' $words | sed 's|=.*|=|' | sort -u)" -- "$stem"
    compgen -f -X '!*.y*ml' -- "$stem"
  fi
}}
"""
_ZSH = """
_vglm_{name}_overrides() {{
  local -a words=({words})
  if [[ "$PREFIX" == *=* ]]; then
    compadd -- ${{(M)words:#${{PREFIX%%=*}}=*}}
  else
    compadd -S '' -- ${{(u)${{words%%=*}}/%/=}}
    _files -g '*.y*ml'
  fi
}}
"""


def script(parser: argparse.ArgumentParser, shell: Literal["bash", "zsh"]) -> str:
    """The completion script of a shell.

    Args:
        parser: That of `vglm`; the arguments of its commands that are overrides are called `overrides`.
        shell: Which one.
    """
    template = _BASH if shell == "bash" else _ZSH
    words = "".join(template.format(name=name, words=" ".join(_words(name))) for name in ("train", "evaluate"))
    preamble: Any = {shell: words}  # as shtab's documentation has it; its annotation says str
    return shtab.complete(parser, shell=shell, preamble=preamble)


def _words(name: str) -> list[str]:
    """The overrides that can be typed: each group with its choices, and the top-level keys."""
    keys = top_level_keys(name) | ({"recipes"} if name == "train" else set())
    groups = {key for key in keys if key == "recipes" or (repo_root() / "conf" / key).is_dir()}
    return [
        *(f"{group}={choice}" for group in sorted(groups) for choice in choices(group)),
        *(f"{key}=" for key in sorted(keys - groups)),
    ]
