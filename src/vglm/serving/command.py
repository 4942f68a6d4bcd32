"""The commands of the serving half: `vglm chat` and `vglm api`. What they need is imported when they run."""

import argparse
import sys
from pathlib import Path
from typing import Any

from vglm.errors import ConfigError, WorkbenchError

PORT = 8080
_NOT_DIVIDED = ("adapter", "quant", "device_map", "tokenizer")
"""Options that do not go with --tensor-parallel."""


def add_commands(commands: Any) -> None:
    """Add the parsers of this module's commands."""
    chat = commands.add_parser(
        "chat",
        help="talk about a picture in the terminal",
        description="Talk to a model about a picture, or about nothing but text. Answers appear as they are written;"
        " Ctrl-C stops one, `clear` begins anew, `stop` ends the program, /help names the other commands. Through a"
        " pipe every line is a question. Options have the original's names.",
        epilog='example: vglm chat --image cat.png --ask "图中有什么？" --json',
    )
    _add_model(chat)
    add = chat.add_argument
    add("--image", metavar="PATH|URL", help="picture to begin with")
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
    chat.set_defaults(command=_chat, name="chat", doing="loading the model")

    api = commands.add_parser(
        "api",
        help="serve a model over HTTP: the original's contract and OpenAI's",
        description="Serve a model and its adapters: POST / as the original's API, POST /v1/chat/completions and GET"
        " /v1/models as OpenAI's, /healthz, /readyz, /metrics, and a description of it all at /docs. Only this machine"
        " is listened to unless --host says otherwise.",
        epilog="example: vglm api --from_pretrained visualglm-6b --quant 4 --adapter xray=outputs/xray/qlora/<time>",
    )
    _add_model(api)
    add_server_options(api)
    api.set_defaults(command=_api, name="api", doing="loading the model")


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Options of everything that listens."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    add("--port", type=int, default=PORT, help="(default: %(default)s)")
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


def load(parsed: argparse.Namespace, **settings: Any) -> Any:
    """The engine that the options name; None in processes that have followed another's until now."""
    from vglm.serving.loading import load_divided_engine, load_engine

    if parsed.tensor_parallel:
        refused = {f"--{name.replace('_', '-')}": getattr(parsed, name) for name in _NOT_DIVIDED}
        return load_divided_engine(parsed.from_pretrained, dtype=parsed.dtype, refused=refused, **settings)
    return load_engine(
        parsed.from_pretrained,
        adapters=parsed.adapter,
        quant=parsed.quant,
        dtype=parsed.dtype,
        device_map=parsed.device_map,
        tokenizer=parsed.tokenizer,
        **settings,
    )


def _chat(parsed: argparse.Namespace) -> None:
    from vglm.serving.adapters import BASE
    from vglm.serving.chat import Dialogue, Terminal, first_question, line_reader, with_english
    from vglm.serving.sampling import Sampling

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
    dialogue = Dialogue(engine, with_english(sampling, parsed.english), adapter, (adapter,))
    language = "en" if parsed.english else "zh"
    question = first_question(parsed.english, parsed.prompt_zh, parsed.prompt_en)
    terminal = Terminal(dialogue, language, question, parsed.json)
    try:
        if parsed.image is not None:
            dialogue.begin(parsed.image)
        if parsed.ask or not sys.stdin.isatty():
            asked = parsed.ask or filter(None, map(str.strip, sys.stdin))
            for line in asked:
                terminal.answer(line)
        else:
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
    serve(parsed, lambda app, engine: app)


def serve(parsed: argparse.Namespace, extend: Any) -> None:
    """Listen until the process is asked to end; what runs then is answered first.

    Args:
        parsed: Options of `_add_model` and `add_server_options`.
        extend: Takes the application and the engine, and returns the application to serve.

    Raises:
        ConfigError: The port is taken, or a package of the extra `serve` is missing.
    """
    try:
        import uvicorn

        from vglm.serving.api import ApiSettings, make_app
    except ModuleNotFoundError as error:
        raise ConfigError(f"this needs the package {error.name}: pip install 'visualglm-workbench[serve]'.") from error
    from vglm.serving.keys import read_keys
    from vglm.serving.requests import Limits

    hashes = () if parsed.key_file is None else read_keys(parsed.key_file)
    if not hashes and parsed.host not in ("127.0.0.1", "localhost", "::1"):
        print(f"warning: {parsed.host} is open to others, and no key is asked for (--key-file).", file=sys.stderr)
    if (engine := load(parsed, max_rows=parsed.max_batch, max_waiting=parsed.max_waiting)) is None:
        return
    settings = ApiSettings(
        limits=Limits(body_bytes=parsed.max_body_mb * 2**20, seconds=parsed.max_seconds),
        key_hashes=hashes,
        allow_remote_images=parsed.allow_remote_images,
    )
    app = extend(make_app(engine, settings), engine)
    config = uvicorn.Config(app, host=parsed.host, port=parsed.port, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    print(f"serving {', '.join(engine.names)} on http://{parsed.host}:{parsed.port}", file=sys.stderr, flush=True)
    try:
        server.run()
    except KeyboardInterrupt:  # raised again when all that ran has been answered
        print("stopped", file=sys.stderr)
    except SystemExit as error:
        engine.close(cancel=True)
        raise WorkbenchError(
            f"could not listen on {parsed.host}:{parsed.port}; is the port taken? Choose --port."
        ) from error
