"""One of several processes that learn together. torchrun starts it, on every machine by the same command:

    python -m torch.distributed.run --nnodes NODES --node-rank N --nproc-per-node GPUS \
        --master-addr HOST --master-port PORT -m reval_core.policies.rank

On the machine of the run, whose --node-rank is 0, the run does so itself (`ranks`), with a socket on which rank 0 is
told what to do; it tells the others. What is to be learned from and what was learned lies in files that all ranks see.
It imports no store and no service. It ends when torchrun ends, or when the run closes the socket.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import socket
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from transformers import AutoConfig, AutoModelForCausalLM

from reval_core.config import ObjectiveConfig, OptimizerConfig
from reval_core.errors import LearningError
from reval_core.learning.activations import checkpoint_activations, use_kernels
from reval_core.learning.example_file import read_examples
from reval_core.learning.sharding import ShardedLearner, shard
from reval_core.learning.shards import read_into

log = logging.getLogger(__name__)

BUFFERS = "buffers.safetensors"
"""Beside the weights: what else a model holds, such as rotary frequencies."""
IDLE = timedelta(days=365)
"""Between two rounds ranks wait for as long as sampling takes."""
LOOK_S = 1.0
"""Seconds between two looks whether torchrun is still there."""
LAST_WORD_S = 10.0
"""Seconds that a rank waits before it ends by an error that is not its own alone. One of ours rank 0, having met it,
too, then has told; and where another rank has died, torchrun, however busy the machine is, has seen that one end
first, and ends this one."""


class Worker:
    """What a rank does when it is asked; every rank is asked the same."""

    def __init__(self, mesh: DeviceMesh, device: torch.device) -> None:
        self._mesh, self._device = mesh, device
        self._learner: ShardedLearner | None = None

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do what a message asks for.

        Raises:
            LearningError: what the learner says.
        """
        what = message.pop("ask")
        if what == "begin":
            self._begin(**message)
            return {}
        if self._learner is None:
            raise LearningError(f"A rank was asked for {what!r} before it had anything to learn.")
        if what == "begin_round":
            self._learner.begin_round(read_examples(Path(message["examples"])))
            return {}
        if what == "update":
            report = self._learner.update(read_examples(Path(message["examples"])))
            arrays = {name: getattr(report, name).tolist() for name in ("residual", "log_ratio", "root_gap")}
            return vars(report) | arrays
        write = {"write_weights": self._learner.write_weights, "write_state": self._learner.write_state}[what]
        write(Path(message["folder"]))
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # the run samples on the same device now
        return {}

    def _begin(
        self,
        *,
        folder: str,
        state: str | None,
        objective: dict[str, Any],
        optimizer: dict[str, Any],
        compute_dtype: str,
        kernels: Any,
        recomputed: Any,
        pad_id: int,
    ) -> None:
        self._learner = None
        gc.collect()  # the one before, with its moments
        model = self._spread(Path(folder), compute_dtype, kernels, recomputed)
        learner = ShardedLearner(
            model,
            ObjectiveConfig(**objective),
            OptimizerConfig(**optimizer),
            pad_id=pad_id,
            compute_dtype=compute_dtype,
        )
        if state is not None:
            learner.read_state(Path(state))
        self._learner = learner

    def _spread(self, folder: Path, compute_dtype: str, kernels: Any, recomputed: Any) -> nn.Module:
        """The model in the folder in shards; a layer of it at a time is whole here."""
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
        use_kernels(model, kernels)
        checkpoint_activations(model, recomputed, kernels)
        shard(model.eval(), self._mesh, compute_dtype, self._device)
        read_into(folder, dict(model.named_parameters()))
        buffers = load_file(folder / BUFFERS)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
        return model


def main() -> None:
    """Serve as a rank until the run ends."""
    parser = argparse.ArgumentParser(prog="python -m reval_core.policies.rank")
    parser.add_argument("--line", metavar="SOCKET", help="where rank 0 is told what to do")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--timeout-s", type=float, default=600.0, help="seconds that a rank waits for another")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    threading.Thread(target=_end_with_torchrun, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=timedelta(seconds=given.timeout_s))
    idle = dist.new_group(backend="gloo", timeout=IDLE)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    log.info("rank %d of %d on %s", dist.get_rank(), dist.get_world_size(), device)
    try:
        _serve(Worker(mesh, device), _Line(given.line) if dist.get_rank() == 0 else None, idle)
    except RuntimeError:  # as a rule that another rank is gone
        time.sleep(LAST_WORD_S)
        raise
    dist.destroy_process_group()


def _serve(worker: Worker, line: _Line | None, idle: dist.ProcessGroup) -> None:
    while True:
        message = _told(line, idle)
        if message["ask"] == "end":
            return
        log.info("%s", message["ask"])
        try:
            answer = worker.answer(message)
            dist.all_reduce(torch.zeros(1))  # an answer means that all are done
        except LearningError as error:
            if line is None:
                time.sleep(LAST_WORD_S)
            else:
                line.say({"error": str(error)})
            raise
        if line is not None:
            line.say(answer)


def _told(line: _Line | None, idle: dist.ProcessGroup) -> dict[str, Any]:
    """The next message, by rank 0 to all; as bytes, for objects would travel pickled."""
    text = b"" if line is None else line.hear()
    size = torch.tensor([len(text)])
    dist.broadcast(size, 0, group=idle)
    if line is None:
        content = torch.empty(int(size), dtype=torch.uint8)
    else:
        content = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    dist.broadcast(content, 0, group=idle)
    message: dict[str, Any] = json.loads(bytes(content.tolist()))
    return message


class _Line:
    """Rank 0's end of the socket: one JSON object a line. When the run closes it, this process ends at once."""

    def __init__(self, path: str | None) -> None:
        if path is None:
            raise LearningError("Rank 0 is started by the run itself; on other machines give --node-rank 1 and so on.")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._heard: list[bytes] = []
        self._came = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def hear(self) -> bytes:
        """The next message."""
        with self._came:
            self._came.wait_for(lambda: self._heard)
            return self._heard.pop(0)

    def say(self, answer: dict[str, Any]) -> None:
        """Answer it."""
        self._socket.sendall(json.dumps(answer).encode() + b"\n")

    def _listen(self) -> None:
        with self._socket.makefile("rb") as lines:
            for line in lines:
                with self._came:
                    self._heard.append(line)
                    self._came.notify()
        os._exit(1)  # also out of an update that nobody waits for any more; torchrun ends the others


def _end_with_torchrun(torchrun: int) -> None:
    while os.getppid() == torchrun:
        time.sleep(LOOK_S)
    os._exit(1)


if __name__ == "__main__":
    main()
