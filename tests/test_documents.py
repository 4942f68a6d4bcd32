"""What documents say of the code is there: commands, links, names, figures."""

import ast
import importlib.util
import re
import shlex
from types import ModuleType

import documents
import pytest

import vglm
from vglm.cli import command_line
from vglm.config import repo_root
from vglm.errors import WorkbenchError

ROOT = repo_root()
DOCUMENTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in documents.documents()}


def test_every_promise_of_security_names_a_test_that_is_there() -> None:
    text = (repo_root() / "SECURITY.md").read_text(encoding="utf-8")
    promises = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert promises
    for line in promises:
        named = re.findall(r"`(tests/\w+\.py)::(\w+)`", line)
        assert named, f"no test shows: {line}"
        for file, name in named:
            tree = ast.parse((repo_root() / file).read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
                f"{file} has no {name}"
            )


def test_every_command_about_serving_is_one() -> None:
    text = (repo_root() / "docs" / "serving.md").read_text(encoding="utf-8")
    lines = re.findall(r"`(?:torchrun [^`]* -m )?vglm ([^`]+)`", text) + re.findall(r"^vglm (.+)$", text, re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        try:
            command_line().parse_args(shlex.split(line, comments=True))
        except SystemExit:
            pytest.fail(f"vglm {line}: no such command or option")


@pytest.mark.parametrize("name", sorted(set(DOCUMENTS) - set(documents.PAST)))
def test_every_command_could_be_typed(name: str) -> None:
    wrong = []
    for command in dict.fromkeys(documents.commands(DOCUMENTS[name])):
        try:
            documents.check(command)
        except (AssertionError, WorkbenchError, ValueError) as error:
            wrong.append(f"{command}\n    {error}")
    assert not wrong, "\n".join(wrong)


def test_a_command_that_is_none_is_found() -> None:
    block = "```bash\npython train.py recipes=background/lora \\\n    method.rr=16   # a slip\n```\n"
    text = f"{block}and `vglm mirge latest`."
    assert list(documents.commands(text)) == [
        "python train.py recipes=background/lora method.rr=16   # a slip",
        "vglm mirge latest",
    ]
    for command in (*documents.commands(text), "python evaluate.py run=latest metrics=clasification", "make dema"):
        with pytest.raises((AssertionError, WorkbenchError)):
            documents.check(command)


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_every_link_leads_somewhere(name: str) -> None:
    for target, anchor in documents.links(DOCUMENTS[name]):
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.is_file() or (path.is_dir() and not name.startswith("docs/")), f"no file {target}"
        if anchor and path.suffix == ".md":
            assert anchor in documents.anchors(path.resolve()), f"{target} has no heading {anchor}"


def test_python_in_documents_names_what_vglm_has() -> None:
    blocks = [block for text in DOCUMENTS.values() for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    assert len(blocks) > 5
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vglm":
                assert node.attr in vglm.__all__


def from_docs(name: str) -> ModuleType:
    """A module of docs/."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_figures_are_what_the_model_s_code_draws() -> None:
    for name, content in from_docs("figures").figures():
        assert (ROOT / "docs" / "figures" / name).read_text(encoding="utf-8") == content, "python docs/figures.py"


def test_the_architecture_page_has_the_model_s_own_numbers() -> None:
    import torch

    from vglm.model.configuration import VisualGlmConfig
    from vglm.model.modeling import VisualGlmForConditionalGeneration

    with torch.device("meta"):
        whole = VisualGlmForConditionalGeneration(VisualGlmConfig())
    model, text = whole.model, DOCUMENTS["docs/concepts/architecture.md"]

    def size(*parts: torch.nn.Module) -> int:
        return sum(weight.numel() for part in parts for weight in part.parameters())

    queries = model.query_tokens.numel()
    counts = [size(model.vision_model), size(model.qformer) + queries, size(model.language_projection)]
    for count in (*counts, size(model.language_model), size(whole)):
        assert f"{count:,}" in text
    for name, shape in re.findall(r"^\| `model\.([\w.<>]+)` \| ([\d,]+ x [\d,]+) \|", text, re.MULTILINE):
        weight = model.get_submodule(name.replace("<n>", "0")).weight
        assert " x ".join(f"{length:,}" for length in weight.shape) == shape


def test_each_page_of_the_site_is_in_its_navigation() -> None:
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    for name in DOCUMENTS:
        if name.startswith("docs/"):
            assert name.removeprefix("docs/") in listed
