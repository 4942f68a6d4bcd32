"""The API on a free port, and what is sent to it."""

import base64
import io
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import torch
import uvicorn
from openai import OpenAI
from PIL import Image

from vglm.config import build, compose
from vglm.serving import listening
from vglm.serving.api import ApiSettings, make_app
from vglm.serving.engine import Engine
from vglm.tuning.methods import attach, save


class Server:
    """An application on a free port."""

    def __init__(self, engine: Engine, settings: ApiSettings) -> None:
        self.engine = engine
        app, protocol = make_app(engine, settings), listening.PatientProtocol
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", http=protocol, ws="none")
        self.uvicorn = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.uvicorn.run)
        self.thread.start()
        while not self.uvicorn.started:
            assert self.thread.is_alive()
            time.sleep(0.01)
        self.port = self.uvicorn.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=120)
        self.openai = OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def close(self) -> None:
        self.http.close()
        self.openai.close()
        self.uvicorn.should_exit = True
        self.thread.join()


def moved_adapter(model_folder: Path, folder: Path, seed: int = 0, method: str = "lora") -> Path:
    """Save an adapter that was moved away from where it starts."""
    torch.manual_seed(seed)
    cfg = compose(overrides=[f"method={method}", f"model.path_or_id={model_folder}"])
    model, processor = build(cfg.model)
    tuned = attach(model, build(cfg.method))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter)
    return save(tuned, processor, folder)


def picture(**options: Any) -> str:
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "PNG", **options)
    return base64.b64encode(buffer.getvalue()).decode()


def messages(text: str = "图中有什么？", image: str | None = None) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if image is not None:
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}})
    return [{"role": "user", "content": parts}]
