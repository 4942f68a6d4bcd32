"""What stages leave for one another, and what is said on a command line: runs, evaluations, models, overrides."""

import asyncio
import base64
import io
import random
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from vglm.errors import WorkbenchError

from .inputs import Area, _json, _picture
from .mutations import hostile_values

REFERENCE = Path(__file__).parents[1] / "reference" / "visualglm-mini-a"
_TRAINED_WITH = [
    "trainer=debug",
    "trainer.max_steps=2",
    "trainer.save_steps=1",
    "checkpoint_selection.score_checkpoints=false",
]
_EVALUATION = ["max_new_tokens=2", "image_use_samples=2", "baselines=false", "splits=[test]"]


def _command(*arguments: str) -> None:
    """Run `vglm`; what it says of a mistake becomes a message again."""
    from vglm.cli import main
    from vglm.errors import LONGEST_MESSAGE, WorkbenchError

    errors = io.StringIO()
    with redirect_stderr(errors):
        code = main(list(arguments))
    if code == 2:
        text = errors.getvalue().partition("error: ")[2]
        assert len(text) <= LONGEST_MESSAGE + 10, f"a message of {len(text)} characters"
        raise WorkbenchError(text)


def _data(folder: Path) -> Path:
    """Four pictures beside the input, which stay as they are."""
    data_dir = folder.parent / f"{folder.name}-data"
    data_dir.mkdir(exist_ok=True)
    rows = []
    for number, colour in enumerate(("red", "green", "blue", "gold")):
        Image.new("RGB", (8, 8), colour).save(data_dir / f"{number}.png")
        rows.append({"img": f"{number}.png", "prompt": "颜色？", "label": colour})
    _json(data_dir / "dataset.json", rows)
    return data_dir


def _run(folder: Path) -> None:
    import train
    from vglm.config import compose

    data = ["dataset=fewshot_background", f"dataset.path={_data(folder)}"]
    train.run(compose("train", [*data, *_TRAINED_WITH, f"output_dir={folder / 'run'}"]))


def _read_run(folder: Path, rng: random.Random) -> None:
    import evaluate
    from vglm.config import compose, load_run_config

    if rng.random() < 0.3:
        load_run_config(folder / "run")
    evaluate.run(compose("evaluate", [f"run={folder / 'run'}", *_EVALUATION]))


def _interrupted(folder: Path) -> None:
    _run(folder)
    shutil.rmtree(folder / "run" / "adapter")
    shutil.rmtree(folder / "run" / "checkpoint-2")
    (folder / "run" / "run.json").unlink(missing_ok=True)


def _resume(folder: Path, rng: random.Random) -> None:
    import train
    from vglm.config import compose

    train.run(compose("train", [f"resume={folder / 'run'}"]))


def _evaluation(folder: Path) -> None:
    _run(folder)
    _read_run(folder, random.Random(1))
    (folder / "run" / "evaluation").rename(folder / "evaluation")
    shutil.rmtree(folder / "run")


def _report(folder: Path, rng: random.Random) -> None:
    _command("report", str(folder / "evaluation"))


def _score(folder: Path, rng: random.Random) -> None:
    settings = ["metrics.names=[bleu_zh]", "metrics.names=[exact_match,rouge_l]", "metrics.labels=null"]
    _command("score", str(folder / "evaluation"), rng.choice(settings))


def _score_settings(folder: Path, rng: random.Random) -> None:
    keys = [
        "metrics.names",
        "metrics.labels",
        "metrics.external.x",
        "metrics.external.x.scores",
        "metrics.judge",
        "metrics",
    ]
    keys += ["metrics.judge.endpoint", "metrics.convention", "metrics.nothing", "metrics.names.0", "", "other"]
    chosen = [f"{rng.choice(keys)}={_written(rng)}" for _ in range(rng.choice((1, 1, 2)))]
    _command("score", str(folder / "evaluation"), *[argument for argument in chosen if not argument.startswith("-")])


def _written(rng: random.Random) -> str:
    """A hostile value as a command line has it."""
    value = rng.choice(hostile_values())
    text = value if isinstance(value, str) else repr(value).replace("'", "").replace("None", "null")
    return text.replace("\0", "")[:2000]


def _override(folder: Path, rng: random.Random) -> None:
    from vglm.config import check_config, compose, top_level_keys

    name = rng.choice(("train", "evaluate"))
    pool = [
        *sorted(top_level_keys(name)),
        "method.r",
        "method.target_modules",
        "trainer.max_steps",
        "trainer.learning_rate",
    ]
    pool += [
        "model.path_or_id",
        "model.dtype",
        "dataset.path",
        "dataset.division.fractions",
        "method._target_",
        "hydra.run.dir",
        "recipes",
    ]
    arguments = ["dataset=fewshot_background", f"dataset.path={folder}"] if name == "evaluate" else []
    for _ in range(rng.choice((1, 1, 2, 3))):
        key = rng.choice(pool)
        sign = rng.choice(("", "", "", "", "+", "++", "~"))
        arguments.append(f"{sign}{key}={_written(rng)}" if rng.random() < 0.9 else _written(rng))
    check_config(compose(name, arguments), name)


def _nothing(folder: Path) -> None:
    (folder / "x").write_text("")


def _adapter(folder: Path) -> None:
    _run(folder)
    (folder / "run" / "adapter").rename(folder / "adapter")
    shutil.rmtree(folder / "run")


def _read_adapter(folder: Path, rng: random.Random) -> None:
    from vglm.config import repo_root
    from vglm.model.loading import attach_adapter, load_pretrained

    model, _ = load_pretrained(repo_root() / "data" / "visualglm_tiny")
    attach_adapter(model, folder / "adapter")


def _reference(layout: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        shutil.copytree(REFERENCE / layout, folder / "model")
        if "sat" in layout:
            shutil.copy(REFERENCE / "hf_layout" / "ice_text.model", folder / "model")
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)

    return make


def _native(folder: Path) -> None:
    from vglm.model.loading import load_pretrained, save_native

    save_native(*load_pretrained(REFERENCE / "hf_layout"), folder / "model")


def _read_model(folder: Path, rng: random.Random) -> None:
    from vglm.model.loading import load_pretrained

    load_pretrained(folder / "model", tokenizer=REFERENCE / "hf_layout" if rng.random() < 0.5 else None)


def _convert(folder: Path, rng: random.Random) -> None:
    _command("convert", str(folder / "model"), str(folder.parent / "out"), "--tokenizer", str(REFERENCE / "hf_layout"))


def _slow(make: Any, read: Any, **options: Any) -> Area:
    return Area(make, read, changes_input=True, is_quick=False, **options)


# --- the API ----------------------------------------------------------------------------------------------------------


def _requests(folder: Path) -> None:
    """A good request to each path that takes one."""
    image = base64.b64encode(_picture()).decode()
    turns = [["你好", "你好。"]]
    _json(
        folder / "original.json",
        {"image": image, "text": "描述这张图片。", "history": turns, "max_length": 60, "seed": 1},
    )
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
        {"type": "text", "text": "图中有什么？"},
    ]
    chat = {"model": "base", "messages": [{"role": "user", "content": parts}], "max_tokens": 2, "temperature": 0.5}
    _json(folder / "chat.json", {**chat, "top_p": 0.4, "seed": 1, "n": 1, "stop": ["。"], "stream": False})


@lru_cache(maxsize=1)
def _application() -> Any:
    """The API before the tiny model; one for all cases of a worker."""
    from vglm.serving.api import ApiSettings, make_app
    from vglm.serving.loading import load_engine
    from vglm.serving.requests import Limits

    limits = Limits(body_bytes=300_000, pixels=1_000_000, text_characters=20_000, answers=2)
    return make_app(load_engine(max_cached_tokens=4096), ApiSettings(limits=limits))


def _send(folder: Path, rng: random.Random) -> None:
    """Send a request; a refusal becomes a message again, and a server that failed or is not well a finding."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    file = rng.choice(files) if files else None
    content = b"" if file is None else file.read_bytes()
    is_chat = (file is not None and "chat" in file.name) ^ (rng.random() < 0.05)
    path = rng.choice(_PATHS) if rng.random() < 0.1 else "/v1/chat/completions" if is_chat else "/"
    method = rng.choice(("GET", "PUT", "DELETE", "OPTIONS", "X")) if rng.random() < 0.05 else "POST"
    kind = rng.choice(("text/plain", "multipart/form-data; boundary=x", "application/json; charset=x", "\xff", ""))
    headers = {"Content-Type": kind.encode("latin-1") if rng.random() < 0.1 else b"application/json"}

    async def exchange() -> Any:
        import httpx

        transport = httpx.ASGITransport(_application())
        async with httpx.AsyncClient(transport=transport, base_url="http://api", timeout=60) as client:
            reply = await client.request(method, path, content=content, headers=headers)
            assert (await client.get("/readyz")).status_code == 200, "the server is not ready any more"
            return reply

    reply = asyncio.run(exchange())
    assert reply.status_code < 500, f"{reply.status_code} {reply.text[:300]}"
    assert "Traceback" not in reply.text
    if reply.status_code >= 400:
        raise WorkbenchError(reply.json()["error"]["message"])


_PATHS = (
    "/",
    "/v1/chat/completions",
    "/v1/models",
    "/v1",
    "/metrics",
    "/healthz",
    "/%00",
    "/../etc/passwd",
    "/v1/x?a=%ff",
)


AREAS = {
    "api": Area(_requests, _send),
    "runs": _slow(_run, _read_run),
    "resume": _slow(_interrupted, _resume),
    "evaluations/report": _slow(_evaluation, _report),
    "evaluations/score": _slow(_evaluation, _score),
    "evaluations/settings": _slow(_evaluation, _score_settings, is_mutated=False),
    "overrides": Area(_nothing, _override, is_mutated=False),
    "models/adapter": _slow(_adapter, _read_adapter),
    "models/native": _slow(_native, _read_model),
    "models/hf": _slow(_reference("hf_layout"), _read_model),
    "models/sat": _slow(_reference("sat_layout"), _convert),
    "models/sat-lora": _slow(_reference("sat_lora"), _convert),
}
