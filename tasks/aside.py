"""Evaluation beside training: a second process on a device of its own evaluates saved policies while the run goes on.

The process makes the very stages that the run would make, under a run of its own called NAME-evaluations; the run then
finds them done, by their keys, and links them. What a killed run had still to evaluate is due again at its next start.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from reval_core.config import Config
from reval_core.errors import RevalError
from reval_core.home import Home

PROGRAM = ("-P", "-m", "tasks.evaluator")
"""What Python is started with."""
END_S = 30.0
"""Seconds that it has to end; what it has sampled until then is stored and not sampled again."""
SHOWN = 2000
"""Last characters of what the process said that an error shows."""


class Aside:
    """The process that evaluates, started with the first policy that is asked for.

    Args:
        config: the run's; its ``evaluation.device`` is where the process works.
        home: the root.
        log_file: where it says what goes wrong.
    """

    def __init__(self, config: Config, home: Home, log_file: Path) -> None:
        self._config, self._home, self._log_file = config, home, log_file
        self._process: subprocess.Popen[str] | None = None
        self._done: queue.Queue[tuple[int, str] | None] = queue.Queue()
        self._asked: list[tuple[int, str]] = []

    def ask(self, iteration: int, policy_id: str) -> None:
        """Have a saved policy evaluated that an iteration gave; once, however often it is asked."""
        if (iteration, policy_id) in self._asked:
            return
        self._asked.append((iteration, policy_id))
        process = self._process or self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([iteration, policy_id]) + "\n")
            process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failure(process) from error

    def finished(self, *, wait: bool = False) -> Iterator[tuple[int, str]]:
        """(iteration, policy) of what has been evaluated since the last call; with ``wait`` of all that was asked for.

        Raises:
            RevalError: the process has ended before it was done.
        """
        while self._asked and self._process is not None:
            try:
                one = self._done.get(block=wait)
            except queue.Empty:
                return
            if one is None:
                raise self._failure(self._process)
            self._asked.remove(one)
            yield one

    def close(self) -> None:
        """End the process: in order where it is done, else its lifeline is cut."""
        if self._process is None or self._process.stdin is None:
            return
        with suppress(BrokenPipeError):
            if not self._asked:
                self._process.stdin.write("null\n")
            self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _started(self) -> subprocess.Popen[str]:
        paths = [os.path.abspath(path) if path else os.getcwd() for path in sys.path]
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log_file, "w", encoding="utf-8") as said:
            process = subprocess.Popen(
                [sys.executable, *PROGRAM, str(self._home.root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
        assert process.stdin is not None
        process.stdin.write(json.dumps(evaluator_config(self._config)) + "\n")
        self._process = process
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("["):
                iteration, policy_id = json.loads(line)
                self._done.put((iteration, policy_id))
        self._done.put(None)

    def _failure(self, process: subprocess.Popen[str]) -> RevalError:
        said = self._log_file.read_text(encoding="utf-8").strip()[-SHOWN:]
        return RevalError(
            f"The process that evaluates on {self._config.evaluation.device} ended with exit code {process.wait()}. "
            f"{said or 'It said nothing.'} ({self._log_file}) Start the run again, or set evaluation.device to null."
        )


def evaluator_config(config: Config) -> dict[str, Any]:
    """The configuration under which the second process evaluates: the run's, on the other device, without rounds."""
    tree = config.model_dump(mode="json")
    tree["run"] |= {"name": f"{config.run.name}-evaluations", "iterations": 0}
    tree["model"]["device"] = config.evaluation.device
    tree["learning"] |= {"ranks": 1, "nodes": 1, "rendezvous": None}
    tree["evaluation"] |= {"device": None, "before": True}
    return tree
