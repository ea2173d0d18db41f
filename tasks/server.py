"""Prefect's server as a process of its own, which ends when the one that started it is gone, however that ended.

    python -m tasks.server

It prints its address once it answers. Standard input is its lifeline: only the starting process holds the other end, so
the end of that file is the end of that process.
"""

import os
import socket
import sys
import threading
import time
from contextlib import suppress

import uvicorn
from prefect.server.api.server import create_app

HOST = "127.0.0.1"
PATIENCE_S = 5.0
"""Seconds for requests under way when the server is to end."""


def main() -> None:
    """Serve until standard input ends."""
    listening = socket.create_server((HOST, 0))
    server = uvicorn.Server(uvicorn.Config(create_app(ephemeral=True, final=True), log_level="error", lifespan="on"))
    threading.Thread(target=_announce, args=(server, listening.getsockname()[1]), daemon=True).start()
    threading.Thread(target=_end_with_the_other, args=(server,), daemon=True).start()
    with suppress(SystemExit):  # how uvicorn leaves a start-up that failed, which it has logged
        server.run(sockets=[listening])
    os._exit(0 if server.started else 1)  # threads of such a start-up would keep the process


def _announce(server: uvicorn.Server, port: int) -> None:
    while not server.started:
        time.sleep(0.05)
    print(f"http://{HOST}:{port}/api", flush=True)


def _end_with_the_other(server: uvicorn.Server) -> None:
    sys.stdin.buffer.read()
    if server.started:
        server.should_exit = True
        time.sleep(PATIENCE_S)
    os._exit(0)  # what is still starting, or is kept open by somebody, holds the server up no longer


if __name__ == "__main__":
    main()
