"""The API on several replicas and machines, under Ray Serve; each replica has the model and its adapters.

pip install ".[scale]"
VGLM_REPLICAS=2 serve run recipes.serving.ray_app:app             http://127.0.0.1:8000, as `vglm api` answers

VGLM_CHECKPOINT     folder or hub id (the tiny model)          VGLM_ADAPTERS    [name=]run folders, comma-separated
VGLM_REPLICAS       how many (1)                               VGLM_GPUS        of each replica (0)
VGLM_KEY_FILE       hashes of keys, see vglm api --new-key     VGLM_QUANT       4 or 8
"""

import os
from pathlib import Path

from fastapi import FastAPI
from ray import serve

from vglm.serving.api import ApiSettings, make_app
from vglm.serving.keys import read_keys
from vglm.serving.loading import load_engine


def build() -> FastAPI:
    """The same application as `vglm api`, made in each replica."""
    engine = load_engine(
        os.environ.get("VGLM_CHECKPOINT"),
        adapters=[adapter for adapter in os.environ.get("VGLM_ADAPTERS", "").split(",") if adapter],
        quant=int(os.environ["VGLM_QUANT"]) if "VGLM_QUANT" in os.environ else None,
    )
    keys = os.environ.get("VGLM_KEY_FILE")
    return make_app(engine, ApiSettings(key_hashes=read_keys(Path(keys)) if keys else ()))


app = serve.deployment(
    serve.ingress(build)(),
    name="vglm",
    num_replicas=int(os.environ.get("VGLM_REPLICAS", "1")),
    max_ongoing_requests=32,
    ray_actor_options={"num_gpus": float(os.environ.get("VGLM_GPUS", "0"))},
).bind()
