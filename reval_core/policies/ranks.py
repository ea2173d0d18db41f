"""The worker's side of learning over several ranks: starts them through torchrun, asks them, notices their death.

The worker stays the only one who knows the store. It and the ranks exchange safetensors and JSON in a folder that all
of them see, and short messages on a local socket (`rank`).
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from reval_core.errors import LearningError
from reval_core.upkeep import LearningConfig

log = logging.getLogger(__name__)

LOOK_S = 0.2
"""Seconds between two looks at torchrun while an answer is waited for."""
END_S = 10.0
"""Seconds that ranks have to end by themselves."""
LINES, TAIL = 8, 1 << 14
"""Last lines of a dead rank's log that are told, and the bytes that are read for them."""
FAILED = re.compile(r"Root Cause.*?rank\s*:\s*(\d+).*?exitcode\s*:\s*(-?\d+)", re.DOTALL)
"""In torchrun's own summary: who failed first, and how."""


class Ranks:
    """The processes that learn together. They start when they are first asked, and again after one has died.

    Args:
        folder: for what is exchanged and for logs; on several machines one that all see. It is this object's alone.
        config: how many, where.
        device: "cpu" or "cuda"; a rank has the GPU of its number on its machine.
        threads: CPU threads of each.
    """

    def __init__(self, folder: Path, config: LearningConfig, *, device: str, threads: int = 1) -> None:
        self.folder = folder
        self.started = 0
        """How often they have been started; what they held before is lost."""
        self._config, self._device, self._threads = config, device.partition(":")[0], threads
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._rest = b""
        self._waiting = False

    def ask(self, what: str, **given: Any) -> dict[str, Any]:
        """Have all ranks do something, and wait for it.

        Raises:
            LearningError: the learner's own error, or a rank has died; then all have ended.
        """
        self.start()
        assert self._socket is not None
        self._waiting = True
        with suppress(BrokenPipeError, ConnectionResetError):  # its end is seen below
            self._socket.sendall(json.dumps({"ask": what, **given}).encode() + b"\n")
        answer = self._answer()
        self._waiting = False
        if "error" in answer:
            self.close()
            raise LearningError(answer["error"])
        return answer

    def empty(self, name: str) -> Path:
        """An empty folder to exchange something in."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def seen(self, state: Path) -> Path:
        """A folder that all ranks see with the optimizer's state in this one."""
        if self._config.nodes == 1 or state.is_relative_to(self.folder):
            return state
        folder = self.empty("state")
        for file in state.glob("optimizer*"):
            shutil.copy(file, folder)
        return folder

    def close(self) -> None:
        """End the ranks; those that are at work, or do not end by themselves, are killed."""
        process, self._process = self._process, None
        if process is None:
            return
        everyone = _family(process.pid)
        if not self._waiting:
            assert self._socket is not None
            with suppress(OSError):
                self._socket.sendall(b'{"ask": "end"}\n')
            psutil.wait_procs(everyone, timeout=END_S)
        if self._socket is not None:
            self._socket.close()
        self._socket, self._rest, self._waiting = None, b"", False
        if process.poll() is None:
            process.terminate()
        _, left = psutil.wait_procs(everyone, timeout=END_S)
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the ranks, unless they are there.

        Raises:
            LearningError: one of them could not start.
        """
        if self._process is not None:
            return
        self.started += 1
        shutil.rmtree(self.folder, ignore_errors=True)
        logs = self.empty("logs")
        # a socket's path is short, and a folder of one's own keeps others from it
        with tempfile.TemporaryDirectory(prefix="reval-ranks-") as private, socket.socket(socket.AF_UNIX) as door:
            line = os.path.join(private, "line")
            door.bind(line)
            door.listen(1)
            command = self._command(line, logs)
            log.info("starting %d ranks: %s", self._config.ranks, " ".join(command))
            if self._config.nodes > 1:
                log.info("on every other machine N = 1, 2, ...: %s", " ".join(self.elsewhere()))
            paths = [os.path.abspath(path) if path else os.getcwd() for path in sys.path]
            with open(logs / "torchrun.log", "wb") as output:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={
                        **os.environ,
                        "PYTHONPATH": os.pathsep.join(paths),
                        "OMP_NUM_THREADS": str(self._threads),
                    },
                    start_new_session=True,  # Ctrl-C is the worker's, which ends them
                )
            self._waiting = True
            while not select.select([door], [], [], LOOK_S)[0]:
                if self._process.poll() is not None:
                    raise self._death()
            self._socket, _ = door.accept()
            self._waiting = False

    def _command(self, line: str, logs: Path) -> list[str]:
        program = ["-m", "reval_core.policies.rank", *self._options(), "--line", line]
        return [*self._torchrun("0"), "--log-dir", str(logs), "--redirects", "3", *program]

    def elsewhere(self) -> list[str]:
        """The command of the other machines, where N is 1, 2, ...; it ends with the run."""
        return [*self._torchrun("N"), "-m", "reval_core.policies.rank", *self._options()]

    def _options(self) -> list[str]:
        timeout = f"{self._config.timeout_s:g}"
        return ["--device", self._device, "--threads", str(self._threads), "--timeout-s", timeout]

    def _torchrun(self, node: str) -> list[str]:
        host, port = self._config.address or ("127.0.0.1", _free_port())
        return [
            sys.executable,
            "-m",
            "torch.distributed.run",
            *("--nnodes", str(self._config.nodes)),
            *("--node-rank", node),
            *("--nproc-per-node", str(self._config.local_ranks)),
            *("--master-addr", host),
            *("--master-port", str(port)),
        ]

    def _answer(self) -> dict[str, Any]:
        assert self._socket is not None
        assert self._process is not None
        while b"\n" not in self._rest:
            if select.select([self._socket], [], [], LOOK_S)[0]:
                try:
                    chunk = self._socket.recv(1 << 20)
                except ConnectionResetError:
                    chunk = b""
                if not chunk:
                    raise self._death()
                self._rest += chunk
            elif self._process.poll() is not None:
                raise self._death()
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _death(self) -> LearningError:
        """What to raise when a rank has died, once all have ended."""
        assert self._process is not None
        deadline = time.monotonic() + END_S  # torchrun ends the others, and says who was first
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        logs = self.folder / "logs"
        summary = _tail(logs / "torchrun.log", lines=200)
        found = FAILED.search(summary)
        if found is None:
            told = f"The ranks have ended. The last lines of torchrun's log:\n{_last(summary)}"
        else:
            rank, code = int(found[1]), int(found[2])
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            own = sorted(logs.rglob(f"{rank % self._config.local_ranks}/stderr.log"))
            text = _tail(own[-1], LINES) if own else ""
            told = f"Rank {rank} of {self._config.ranks} {how}. The last lines of its log:\n{_last(text)}"
        self.close()
        return LearningError(f"{told}\nNothing of this is committed; the same command goes on.")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _family(pid: int) -> list[psutil.Process]:
    """A process and all that it has started, as far as they are there."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _tail(path: Path, lines: int) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _last(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines()[-LINES:]) or "  (empty)"
