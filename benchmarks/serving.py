"""What does serving many clients cost, compared with one, and does a load peak have lasting effects?

    python benchmarks/serving.py
    python benchmarks/serving.py --storm 1000
    python benchmarks/serving.py --kills 5

Starts `vglm api` with the tiny model on a free port and asks about a picture, with streaming; nearly all answers are
cut at 64 tokens, drawn by seed. The first form prints for 1, 8 and 32 clients at once the throughput in tokens a second
as a ratio to one client's, by the clock and by the server's processor time, which other work on the machine disturbs
less. Beside it, how long a client waits for the first piece of its answer while all others are being answered, as a
ratio to the time when there are no others. Rounds of all three take turns.

`--storm N` sends N clients at once, every other one of which hangs up in the middle of its answer, twice. The answers
of the others must be those that they get alone, and the server's memory the same after the second storm as after the
first. `--kills N` kills the server under load N times (SIGKILL) and starts it again on the same port. Nothing may be
left on disk (torch makes an empty folder of its own), and the answers must be the same.
"""

import argparse
import asyncio
import base64
import contextlib
import io
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
from PIL import Image

CLIENTS = (1, 8, 32)
SETTINGS = {"temperature": 5.0, "top_p": 1.0, "top_k": 1000, "max_tokens": 64, "stream": True}
STORM_SETTINGS = {**SETTINGS, "max_tokens": 16}
SOURCE = Path(__file__).parents[1] / "src"


@dataclass(frozen=True)
class Reply:
    """One streamed answer: its text, tokens, and seconds to its first piece (None where none came)."""

    text: str
    tokens: int
    first: float | None


@dataclass(frozen=True)
class Round:
    """Some clients, all at once: tokens a second by the clock and by the server's processor, and a newcomer's wait."""

    by_clock: float
    by_processor: float
    first: float


@contextlib.contextmanager
def serving(folder: Path, *options: str, port: int | None = None) -> Iterator[tuple[str, psutil.Process]]:
    """Run the API in an empty folder; yields its address and its process."""
    port = port or _free_port()
    command = [sys.executable, "-m", "vglm", "api", "--port", str(port), *options]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    try:
        while True:
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def question(seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """A request about a picture."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "图中有什么？"}]
    usage = {"stream_options": {"include_usage": True}}
    return {"model": "base", "messages": [{"role": "user", "content": content}], "seed": seed, **settings, **usage}


async def ask(client: httpx.AsyncClient, body: dict[str, Any], *, pieces: int | None = None) -> Reply:
    """Ask and read the answer; with `pieces`, hang up after so many of them."""
    begin, first, texts, tokens = time.perf_counter(), None, [], 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        if reply.status_code != 200:
            raise SystemExit(f"{reply.status_code} {(await reply.aread()).decode()[:300]}")
        async for line in reply.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            for choice in event["choices"]:
                if piece := choice["delta"].get("content"):
                    first = first or time.perf_counter() - begin
                    texts.append(piece)
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
            if pieces is not None and len(texts) >= pieces:
                break
    return Reply("".join(texts), tokens, first)


async def play(url: str, server: psutil.Process, clients: int, questions: Sequence[dict[str, Any]]) -> Round:
    """Let clients share the questions, each asking its next one when the last is answered."""
    queue = list(questions)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=None)) as client:

        async def work() -> list[Reply]:
            replies = []
            while queue:
                replies.append(await ask(client, queue.pop()))
            return replies

        used, begin = server.cpu_times(), time.perf_counter()
        replies = [reply for batch in await asyncio.gather(*(work() for _ in range(clients))) for reply in batch]
        seconds, now = time.perf_counter() - begin, server.cpu_times()
    tokens = sum(reply.tokens for reply in replies)
    spent = now.user + now.system - used.user - used.system
    return Round(tokens / seconds, tokens / spent, await wait_of_a_newcomer(url, clients - 1))


async def wait_of_a_newcomer(url: str, others: int, times: int = 12) -> float:
    """Median seconds to the first piece of an answer, while so many other clients get theirs."""
    seeds = itertools.count(10_000)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits(max_connections=None)) as client:

        async def keep_busy(delay: float) -> None:
            await asyncio.sleep(delay)
            while True:
                await ask(client, question(next(seeds), SETTINGS))

        tasks = [asyncio.create_task(keep_busy(0.05 * number)) for number in range(others)]
        try:
            await asyncio.sleep(0.05 * others + 0.5 * bool(others))
            replies = [await ask(client, question(seed, {**SETTINGS, "max_tokens": 2})) for seed in range(times)]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return median(reply.first for reply in replies if reply.first is not None)


def throughput(rounds: int, requests: int) -> None:
    """Print the ratios."""
    measured: dict[int, list[Round]] = {clients: [] for clients in CLIENTS}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as (url, server):
        asyncio.run(play(url, server, 8, [question(seed, SETTINGS) for seed in range(16)]))
        for number in range(rounds):
            for clients in CLIENTS:
                seeds = range(1000 * number, 1000 * number + max(16, requests * clients))
                questions = [question(seed, SETTINGS) for seed in seeds]
                measured[clients].append(asyncio.run(play(url, server, clients, questions)))
    alone = measured[1]
    print("clients  tokens/s  x one, by the clock  x one, by processor time  first piece, ms  x one")
    for clients, series in measured.items():
        pairs = list(zip(series, alone, strict=True))
        print(
            f"{clients:7}  {median(many.by_clock for many in series):8.0f}"
            f"  {median(many.by_clock / one.by_clock for many, one in pairs):19.2f}"
            f"  {median(many.by_processor / one.by_processor for many, one in pairs):24.2f}"
            f"  {1000 * median(many.first for many in series):15.0f}"
            f"  {median(many.first / one.first for many, one in pairs):5.2f}"
        )


async def _storm(url: str, clients: int, expected: Sequence[str]) -> int:
    """How many of the clients that stayed got another answer than expected."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        bodies = [question(number % len(expected), STORM_SETTINGS) for number in range(clients)]
        replies = await asyncio.gather(
            *(ask(client, body, pieces=2 if number % 2 else None) for number, body in enumerate(bodies))
        )
    return sum(replies[number].text != expected[number % len(expected)] for number in range(0, clients, 2))


def storm(clients: int) -> int:
    """Print what two storms left; the exit code."""

    async def alone(url: str) -> list[str]:
        async with httpx.AsyncClient(base_url=url, timeout=600) as client:
            return [(await ask(client, question(seed, STORM_SETTINGS))).text for seed in range(20)]

    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), "--max-waiting", str(clients)) as (url, server):
        expected = asyncio.run(alone(url))
        wrong, memory = [], [server.memory_info().rss]
        for _ in range(2):
            wrong.append(asyncio.run(_storm(url, clients, expected)))
            memory.append(server.memory_info().rss)
        metrics = httpx.get(f"{url}/metrics").text
        ready = httpx.get(f"{url}/readyz").json()["status"]
        left = _values(metrics, "vglm_running", "vglm_waiting")
    megabytes = [f"{size / 1e6:.0f}" for size in memory]
    print(f"{clients} clients, half of them dropped in mid-stream, twice; other answers: {sum(wrong)} differ from solo")
    print(f"memory before, after the first, after the second storm: {', '.join(megabytes)} MB")
    print(f"running and waiting afterwards: {left}; the server is {ready}")
    return int(bool(sum(wrong)) or any(left) or memory[2] > 1.05 * memory[1])


def _values(metrics: str, *names: str) -> list[float]:
    return [float(line.split()[1]) for line in metrics.splitlines() if line.startswith(names)]


def kills(times: int) -> int:
    """Print what a killed server left; the exit code."""

    async def load(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=600) as client:
            await asyncio.gather(*(ask(client, question(seed, SETTINGS)) for seed in range(16)), return_exceptions=True)

    async def load_and_kill(url: str, server: psutil.Process) -> None:
        running = asyncio.create_task(load(url))
        while not any(_values((await asyncio.to_thread(httpx.get, f"{url}/metrics")).text, "vglm_running")):
            pass
        server.kill()
        await running

    async def one(url: str) -> str:
        async with httpx.AsyncClient(base_url=url, timeout=600) as client:
            return (await ask(client, question(1, SETTINGS))).text

    port, answers, left = _free_port(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(times):
            with serving(Path(folder), port=port) as (url, server):
                answers.append(asyncio.run(one(url)))
                asyncio.run(load_and_kill(url, server))
            left += [str(path) for path in Path(folder).rglob("*") if path.is_file()]
    print(f"killed under load {times} times; left on disk: {left or 'nothing'}; distinct answers: {len(set(answers))}")
    return int(bool(left) or len(set(answers)) > 1)


def main() -> int:
    """Do what was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=8, help="of each client in a round, at least 16 in all")
    parser.add_argument("--storm", type=int, metavar="N")
    parser.add_argument("--kills", type=int, metavar="N")
    parsed = parser.parse_args()
    if parsed.storm:
        return storm(parsed.storm)
    if parsed.kills:
        return kills(parsed.kills)
    throughput(parsed.rounds, parsed.requests)
    return 0


if __name__ == "__main__":
    sys.exit(main())
