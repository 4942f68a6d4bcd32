"""`vglm web --share`: a public link through Gradio's relay, for as long as the server runs."""

import secrets
import sys
import threading
import time
from typing import Any

from gradio.networking import setup_tunnel

from vglm.errors import brief


def share_when_started(server: Any, port: int) -> None:
    """Print a public link once a server listens, or why there is none; the server runs in both cases.

    Args:
        server: A `uvicorn.Server`.
        port: Where it will listen.
    """
    threading.Thread(target=_share, args=(server, port), name="vglm-share", daemon=True).start()


def _share(server: Any, port: int) -> None:
    while not server.started:
        time.sleep(0.1)
    try:
        link = setup_tunnel("127.0.0.1", port, secrets.token_urlsafe(32), None, None)
    except Exception as error:  # of the network, of the relay, of the program that is fetched for it
        print(f"warning: no public link: {brief(error)}. The page is served here all the same.", file=sys.stderr)
    else:
        print(f"public link: {link}", file=sys.stderr, flush=True)
