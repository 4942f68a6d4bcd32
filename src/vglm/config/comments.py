"""Extract the comment of each field in `conf/`, for the documentation and for the test that no comment is missing.

list(fields("r: 8        # rank of the adapter"))        [("r", "8", "rank of the adapter")]
"""

import re
from collections.abc import Iterator

import yaml


def fields(text: str) -> Iterator[tuple[str, str, str]]:
    """The fields of a config file, but for what is Hydra's.

    Args:
        text: The file's content.

    Yields:
        Dotted name, the default as written (empty where fields of its own follow), and the comment on the same line.
    """
    lines = text.splitlines()

    def walk(node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, str, str]]:
        for key, value in node.value:
            if key.value.startswith("_") or (not prefix and key.value in ("defaults", "hydra")):
                continue
            name = f"{prefix}{key.value}"
            start, end = value.start_mark, value.end_mark
            is_block = isinstance(value, yaml.CollectionNode) and not value.flow_style
            is_below = is_block or getattr(value, "style", None) in ("|", ">")  # the comment is behind the key
            line = lines[key.start_mark.line if is_below else end.line]
            comment = re.search(r"\s#\s(.*)", line[key.end_mark.column + 1 if is_below else end.column :])
            yield name, "" if is_block else text[start.index : end.index], comment[1] if comment else ""
            if isinstance(value, yaml.MappingNode) and is_block:
                yield from walk(value, f"{name}.")

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):
        yield from walk(root, "")
