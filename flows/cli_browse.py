"""The command ``reval browse``: the trajectory browser on 127.0.0.1, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import sys
import webbrowser
from typing import Annotated

import typer

from flows.terminal import console
from reval_core.errors import ConfigError, StoreError
from reval_core.home import find_home

app = typer.Typer()

HOST = "127.0.0.1"
WAITING = 64
"""Connections that may wait until they are answered."""


@app.command()
def browse(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the pages; 0 takes one that is free.")] = 4300,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser, though there is a display.")] = False,
    device: Annotated[str, typer.Option(help="Where step rewards are computed; cpu leaves a run its GPU.")] = "cpu",
) -> None:
    """Look at trajectories in a browser: filters, formulas, verdicts, step rewards, two policies side by side."""
    home = find_home()
    if not home.database.exists():
        raise StoreError(f"There is no database at {home.database}. Is REVAL_HOME right? `reval train` creates it.")
    if device != "cpu":
        from reval_core.environment import choose_device  # it takes PyTorch

        device = choose_device(device)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    import uvicorn

    from reval_core.browsing import application

    with _bound(port) as listening:
        port = listening.getsockname()[1]
        address = f"http://{HOST}:{port}"
        console.print(f"root {home.root}", markup=False, soft_wrap=True)
        console.print(f"trajectories of this root: {address}", markup=False, soft_wrap=True)
        console.print("Ctrl-C ends it. It only reads; a run may go on meanwhile.")
        if not no_open and has_display():
            webbrowser.open(address)
        answering = uvicorn.Config(
            application(home, port, device), log_level="warning", access_log=False, server_header=False, ws="none"
        )
        uvicorn.Server(answering).run(sockets=[listening])


def _bound(port: int) -> socket.socket:
    """A socket that takes connections on 127.0.0.1 from now on.

    Raises:
        ConfigError: the port is taken.
    """
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(WAITING)
    except OSError as error:
        listening.close()
        raise ConfigError(f"Port {port} of {HOST} is taken. Choose another with --port.") from error
    return listening


def has_display() -> bool:
    """Whether a browser that is opened here is seen by whoever called."""
    if "SSH_CONNECTION" in os.environ or not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))
