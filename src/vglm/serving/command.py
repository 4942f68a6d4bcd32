"""The serving commands: `vglm chat`, `api`, `web`, `demo` and `rate`.

What they need is imported when they run.
"""

import argparse
import os
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vglm.config.commands import Commands
from vglm.errors import ConfigError, WorkbenchError
from vglm.text.prompt import Language

PORT = 8080
PAGE_PORT = 7860
_LOCAL = ("127.0.0.1", "localhost", "::1")
PAGE_SECONDS = 3
"""How long the end waits for open pages, whose connections stay open."""
_BITS = {"int8": 8, "int8_fast": 8, "int4": 4, "nf4": 4}
_NOT_DIVIDED = ("adapter", "quant", "device_map", "tokenizer")
"""Options that do not go with --tensor-parallel."""


def add_commands(commands: Commands) -> None:
    """Add the parsers of this module's commands."""
    chat = commands.add(
        "chat",
        _chat,
        doing="loading the model",
        help="talk about a picture in the terminal",
        description="Talk to a model about a picture, or about nothing but text. Answers appear as they are written;"
        " Ctrl-C stops one, `clear` begins anew, `stop` ends the program, /help names the other commands. Through a"
        " pipe every line is a question. Options have the original's names.",
        example='vglm chat --image cat.png --ask "图中有什么？" --json',
    )
    _add_model(chat)
    add = chat.add_argument
    add("--image", metavar="PATH|URL", help="picture to begin with; described first where lines are typed")
    add("--ask", metavar="TEXT", action="append", default=[], help="ask this and end; repeatable, in one dialogue")
    add("--json", action="store_true", help="print each turn as a line of JSON")
    add("--max_length", "--max-length", type=int, default=2048, help="tokens of question and answer (default: 2048)")
    add("--top_p", "--top-p", type=float, default=0.4, help="nucleus sampling (default: 0.4)")
    add("--top_k", "--top-k", type=int, default=100, help="top-k sampling (default: 100)")
    add("--temperature", type=float, default=0.8, help="0: greedy (default: 0.8)")
    add("--repetition_penalty", "--repetition-penalty", type=float, default=1.2, help="1: none (default: 1.2)")
    add("--seed", type=int, help="of the draws; the same seed gives the same answers")
    add("--english", action="store_true", help="speak English; answers hold no Chinese characters")
    add("--prompt_zh", "--prompt-zh", metavar="TEXT", help="first question about a picture (default: 描述这张图片。)")
    add("--prompt_en", "--prompt-en", metavar="TEXT", help="the same with --english (default: Describe the image.)")

    api = commands.add(
        "api",
        _api,
        doing="loading the model",
        help="serve a model over HTTP: the original's contract and OpenAI's",
        description="Serve a model and its adapters: POST / as the original's API, POST /v1/chat/completions and GET"
        " /v1/models as OpenAI's, /healthz, /readyz, /metrics, and a description of it all at /docs. Only this machine"
        " is listened to unless --host says otherwise.",
        example="vglm api --from_pretrained visualglm-6b --quant 4 --adapter xray=outputs/xray/qlora/<time>",
    )
    _add_model(api)
    add_server_options(api)

    web = commands.add(
        "web",
        _web,
        doing="loading the model",
        help="talk about pictures in the browser, before and after side by side",
        description="Serve a web page, and the API that it is a client of. With an adapter one question goes to the"
        " base and to the adapted model at once. The samples of an evaluation are offered as examples, with the true"
        " answer: those of --evaluation, or of the run that the first adapter is from.",
        example="vglm web --adapter outputs/background/lora/<time> --lang zh",
    )
    _add_page(web)

    demo = commands.add(
        "demo",
        _demo,
        doing="loading the newest run",
        help="the same on the newest run",
        description="As `vglm web` with the newest run's base, adapter and evaluation.",
        example="vglm demo --port 7861",
    )
    _add_page(demo)

    rate = commands.add(
        "rate",
        _rate,
        doing="reading the answers",
        help="have people compare an evaluation's answers, blinded",
        description="Serve a page that shows picture, question and both answers of each test sample in random order,"
        " without saying which is whose. Ratings are kept in EVALUATION/ratings/<rater>.jsonl; whoever stopped goes on"
        " where they were. `vglm report EVALUATION` then shows them in the report.",
        example="vglm rate outputs/background/lora/<time>/evaluation --rater anna",
    )
    add = rate.add_argument
    add(
        "evaluation", metavar="EVALUATION", type=Path, help="folder that evaluate.py wrote, a run with one, or `latest`"
    )
    add("--rater", metavar="NAME", help="who rates (default: the page asks)")
    add("--findings", action="store_true", help="radiographs: judge each finding as well")
    add("--summary", action="store_true", help="print what was rated so far and end")
    add("--lang", choices=["zh", "en"], help="language of the page (default: the environment's)")
    _add_address(rate, PAGE_PORT)


def _add_page(parser: argparse.ArgumentParser) -> None:
    """Options of the web page."""
    _add_model(parser)
    add = parser.add_argument
    add("--evaluation", metavar="DIR", type=Path, help="evaluation folder whose samples are offered, or `latest`")
    add("--lang", choices=["zh", "en"], help="language of the page (default: the environment's)")
    add("--auth", metavar="NAME:PASSWORD", help="what visitors must know; the API then asks for a key")
    add("--share", action="store_true", help="make a public link through Gradio's relay; anybody who has it may ask")
    add_server_options(parser, PAGE_PORT)


def _add_address(parser: argparse.ArgumentParser, port: int) -> None:
    add = parser.add_argument
    add("--host", default=_LOCAL[0], help="address to listen on (default: this machine only)")
    add("--port", type=int, default=port, help="(default: %(default)s)")
    add(
        "--allowed-host",
        metavar="NAME",
        action="append",
        default=[],
        help="name beside localhost by which a proxy reaches this machine; repeatable",
    )


def add_server_options(parser: argparse.ArgumentParser, port: int = PORT) -> None:
    """Options of everything that listens with a model."""
    add = parser.add_argument
    _add_address(parser, port)
    add("--key-file", metavar="FILE", type=Path, help="hashes of the keys that clients must show")
    add("--new-key", action="store_true", help="make a key, add its hash to --key-file, print it and end")
    add("--allow-remote-images", action="store_true", help="fetch pictures from public web addresses")
    add("--max-batch", type=int, default=32, help="questions answered at once (default: %(default)s)")
    add("--max-waiting", type=int, default=256, help="questions that may wait beside them (default: %(default)s)")
    add("--max-body-mb", type=int, default=20, help="largest request (default: %(default)s)")
    add("--max-seconds", type=float, default=600.0, help="longest time for an answer (default: 600)")


def _add_model(parser: argparse.ArgumentParser) -> None:
    """Options that say which model, in which precision, where."""
    add = parser.add_argument
    add(
        "--from_pretrained",
        "--from-pretrained",
        metavar="DIR",
        help="checkpoint: a folder in any layout, or an id on the hub (default: the tiny model that comes along)",
    )
    add(
        "--adapter",
        metavar="[NAME=]DIR",
        action="append",
        default=[],
        help="run folder, peft folder or `latest`; repeatable",
    )
    add("--quant", type=int, choices=[8, 4], help="load the language model in 8 or 4 bits")
    add("--dtype", choices=["float32", "float16", "bfloat16"], help="(default: float32 on a CPU, else as stored)")
    add("--device-map", metavar="WHERE", help="auto, cpu, cuda:1 ... (default: the GPU if there is one)")
    add("--tensor-parallel", action="store_true", help="divide the model among the processes that torchrun starts")
    add("--tokenizer", metavar="DIR", help="folder with ice_text.model, which the SAT layout lacks")


_NARROW = 512
"""Width of a language model below which steps are too short for a second thread, which waits for work busily."""


def load(parsed: argparse.Namespace, **settings: Any) -> Any:
    """The engine that the options name; None in processes that have followed another's until now."""
    import torch

    from vglm.config import quiet_libraries
    from vglm.serving.loading import load_divided_engine, load_engine

    quiet_libraries()
    if parsed.tensor_parallel:
        refused = {f"--{name.replace('_', '-')}": getattr(parsed, name) for name in _NOT_DIVIDED}
        return load_divided_engine(parsed.from_pretrained, dtype=parsed.dtype, refused=refused, **settings)
    engine = load_engine(
        parsed.from_pretrained,
        adapters=parsed.adapter,
        quant=parsed.quant,
        dtype=parsed.dtype,
        device_map=parsed.device_map,
        tokenizer=parsed.tokenizer,
        **settings,
    )
    if engine.base.config.text_config.hidden_size < _NARROW and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    return engine


def _chat(parsed: argparse.Namespace) -> None:
    from vglm.serving.adapters import BASE
    from vglm.serving.chat import Dialogue, Terminal, first_question, in_language, line_reader
    from vglm.serving.sampling import Sampling
    from vglm.tuning.stopping import stopping_at_once

    sampling = Sampling(
        max_length=parsed.max_length,
        top_p=parsed.top_p,
        top_k=parsed.top_k,
        temperature=parsed.temperature,
        repetition_penalty=parsed.repetition_penalty,
        seed=parsed.seed,
    )
    if (engine := load(parsed)) is None:
        return
    adapter = engine.names[1] if len(engine.names) > 1 else BASE
    language: Language = "en" if parsed.english else "zh"
    dialogue = Dialogue(engine, in_language(sampling, language), adapter, (adapter,))
    question = first_question(language, parsed.prompt_zh, parsed.prompt_en)
    terminal = Terminal(dialogue, language, question, parsed.json)
    try:
        if parsed.image is not None:
            dialogue.begin(parsed.image)
        if parsed.ask or not sys.stdin.isatty():
            questions = parsed.ask or filter(None, map(str.strip, sys.stdin))
            for line in questions:
                if not terminal.answer(line):
                    raise KeyboardInterrupt
        else:
            with stopping_at_once():  # Ctrl-C ends an answer, a request to terminate the program
                terminal.run(line_reader())
    finally:
        engine.close(cancel=True)


def _api(parsed: argparse.Namespace) -> None:
    if parsed.new_key:
        from vglm.serving.keys import add_key

        if parsed.key_file is None:
            raise ConfigError("--new-key needs --key-file FILE, where the key's hash goes.")
        print(add_key(parsed.key_file))
        return
    serve(parsed)


def _web(parsed: argparse.Namespace) -> None:
    from vglm.runs import evaluation_folder
    from vglm.serving.loading import name_adapter
    from vglm.serving.texts import default_language

    if parsed.auth is not None and not all(parsed.auth.partition(":")):
        raise ConfigError("--auth must be NAME:PASSWORD, such as --auth anna:secret.")
    parsed.lang = parsed.lang or default_language()
    parsed.evaluation = None if parsed.evaluation is None else evaluation_folder(parsed.evaluation)
    for text in parsed.adapter:
        _, adapter = name_adapter(text)
        parsed.evaluation = parsed.evaluation or _newest_evaluation(adapter.parent)
    with TemporaryDirectory(prefix="vglm-web-") as folder:
        serve(parsed, Path(folder))


def _newest_evaluation(run: Path) -> Path | None:
    """That of a run folder which was made last; None where there is none."""
    from vglm.evaluation.predictions import read_evaluation
    from vglm.runs import Run

    return max(Run(run).evaluations, key=lambda folder: read_evaluation(folder).created, default=None)


def _demo(parsed: argparse.Namespace) -> None:
    from vglm.runs import Run

    run = Run.latest(Path("outputs"))
    if run.adapter is None:
        raise ConfigError(
            f"the newest run, {run.folder}, tuned the model itself, so base and result are two models. Look at the"
            f" result alone: vglm web --from_pretrained {run.result}"
        )
    model = run.config["model"]
    parsed.from_pretrained = parsed.from_pretrained or model.get("path_or_id")
    parsed.quant = parsed.quant or _BITS.get(model.get("quantization"))
    parsed.adapter = parsed.adapter or [str(run.folder)]
    print(f"the newest run is {run.folder}", file=sys.stderr)
    _web(parsed)


def _rate(parsed: argparse.Namespace) -> None:
    from vglm.errors import DataError
    from vglm.evaluation.score.rating_files import RATINGS_FOLDER, check_rater
    from vglm.files import locked
    from vglm.runs import evaluation_folder
    from vglm.serving.texts import default_language

    parsed.lang = parsed.lang or default_language()
    parsed.evaluation = evaluation_folder(parsed.evaluation)
    if parsed.summary:
        _print_ratings(parsed)
        return
    _import_server()
    from vglm.serving.rating import Study, make_rating_app

    if parsed.rater is not None:
        check_rater(parsed.rater)
    study = Study.open(parsed.evaluation)
    study.check(by_finding=parsed.findings)
    _warn_if_open(parsed, "the page asks for no password")
    app = make_rating_app(study, language=parsed.lang, rater=parsed.rater, by_finding=parsed.findings)
    ratings = parsed.evaluation / RATINGS_FOLDER
    ratings.mkdir(exist_ok=True)
    busy = f"{ratings} is in use: another `vglm rate` serves this evaluation. Open its page; several people can."
    with locked(ratings, busy, error=DataError):
        _listen(parsed, app, f"rate on {_url(parsed)}/ (Ctrl-C ends; every rating is kept at once)")
    _print_ratings(parsed)


def _print_ratings(parsed: argparse.Namespace) -> None:
    """Print the ratings so far."""
    from vglm.evaluation.predictions import read_evaluation
    from vglm.evaluation.report.render import print_table
    from vglm.evaluation.report.sections import ratings
    from vglm.evaluation.score.rating_files import summarise_folder
    from vglm.serving.texts import rating_texts

    evaluation = read_evaluation(parsed.evaluation)
    result = summarise_folder(parsed.evaluation, evaluation)
    if result is None:
        print(rating_texts(parsed.lang)["unrated"].format(folder=parsed.evaluation))
        return
    print_table(ratings.tabulate(result), parsed.lang)
    for sentence in ratings.sentences(result, evaluation):
        print(getattr(sentence, parsed.lang))
    print(rating_texts(parsed.lang)["into_report"].format(folder=parsed.evaluation))


def serve(parsed: argparse.Namespace, page_folder: Path | None = None) -> None:
    """Listen until the process is asked to end; what runs then is answered first.

    Args:
        parsed: Options of `_add_model` and `add_server_options`; with a page also of `_add_page`.
        page_folder: Where the web page keeps the pictures that it shows; None: the API alone.

    Raises:
        ConfigError: The port is taken, or a package of the extras `serve` and `web` is missing.
    """
    has_page = page_folder is not None
    _import_server(has_page)
    from vglm.serving.api import ApiSettings, make_app
    from vglm.serving.keys import read_keys
    from vglm.serving.requests import Limits

    hashes = [] if parsed.key_file is None else read_keys(parsed.key_file)
    if not (parsed.auth if has_page else hashes):
        _warn_if_open(parsed, f"nobody is asked who they are ({'--auth' if has_page else '--key-file'})")
    if (engine := load(parsed, max_rows=parsed.max_batch, max_waiting=parsed.max_waiting)) is None:
        return
    limits = Limits(body_bytes=parsed.max_body_mb * 2**20, seconds=parsed.max_seconds)
    settings = ApiSettings(limits, hashes, parsed.allow_remote_images)
    if page_folder is None:
        app, message = make_app(engine, settings), f"serving {', '.join(engine.names)} on {_url(parsed)}"
    else:
        app = _make_page(parsed, engine, settings, page_folder)
        message = f"open {_url(parsed)}/ ({', '.join(engine.names)}; Ctrl-C ends)"
    try:
        _listen(parsed, app, message, has_page=has_page, asks_for_key=bool(parsed.auth if has_page else hashes))
    finally:
        engine.close(cancel=True)


def _make_page(parsed: argparse.Namespace, engine: Any, api: Any, folder: Path) -> Any:
    """The API with the web page on it, which shows a key of its own where the API asks for one."""
    from vglm.model.identity import hash_weights
    from vglm.serving.api import make_app
    from vglm.serving.keys import new_key
    from vglm.serving.web import PATH, PageSettings, mount_page

    key, key_hash = new_key()
    is_closed = bool(parsed.auth or api.key_hashes)
    name, _, password = (parsed.auth or "").partition(":")
    page = PageSettings(
        folder=folder,
        names=engine.names,
        base_hash=hash_weights(engine.base),
        evaluation=parsed.evaluation,
        language=parsed.lang,
        limits=api.limits,
        api_key=key,
        auth=(name, password) if parsed.auth else None,
    )
    hashes = [*api.key_hashes, key_hash] if is_closed else []
    return mount_page(make_app(engine, replace(api, key_hashes=hashes, page=PATH)), page, f"{_url(parsed)}/v1")


def _import_server(has_page: bool = False) -> None:
    """Raise an error where a package is missing."""
    for name in (
        "uvicorn",
        "fastapi",
        "openai",
        "prometheus_fastapi_instrumentator",
        *(["gradio"] if has_page else []),
    ):
        if find_spec(name) is None:
            extra = "web" if has_page else "serve"
            raise ConfigError(f"this needs the package {name}: pip install 'visualglm-workbench[{extra}]'.")


def _url(parsed: argparse.Namespace) -> str:
    """Where this machine reaches what is served."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(parsed.host, parsed.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{parsed.port}"


def _is_open(parsed: argparse.Namespace) -> bool:
    """Whether others than this machine reach the server."""
    return parsed.host not in _LOCAL or getattr(parsed, "share", False)


def _warn_if_open(parsed: argparse.Namespace, why: str) -> None:
    if _is_open(parsed):
        where = "the public link" if getattr(parsed, "share", False) else parsed.host
        print(f"warning: {where} is open to others, and {why}.", file=sys.stderr)


def _listen(
    parsed: argparse.Namespace, app: Any, message: str, *, has_page: bool = True, asks_for_key: bool = False
) -> None:
    """Serve an application until the process is asked to end."""
    import uvicorn

    from vglm.serving.listening import LocalHosts, PatientProtocol

    patience = PAGE_SECONDS if has_page else None
    is_private = not (asks_for_key or _is_open(parsed))
    config = uvicorn.Config(
        LocalHosts(app, parsed.allowed_host) if is_private or parsed.allowed_host else app,
        host=parsed.host,
        port=parsed.port,
        http=PatientProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=patience,
    )
    server = uvicorn.Server(config)
    print(message, file=sys.stderr, flush=True)
    if getattr(parsed, "share", False):
        from vglm.serving.sharing import share_when_started

        share_when_started(server, parsed.port)
    try:
        server.run()
    except KeyboardInterrupt:  # raised again when all that ran has been answered
        print("stopped", file=sys.stderr)
    except SystemExit as error:
        raise WorkbenchError(
            f"could not listen on {parsed.host}:{parsed.port}; is the port taken? Choose --port."
        ) from error
