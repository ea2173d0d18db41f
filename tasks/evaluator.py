"""The process that evaluates beside a run; see tasks/aside.py.

    python -m tasks.evaluator ROOT

The first line of standard input is its configuration, each further one [ITERATION, POLICY]; it prints the same line
when that policy has been evaluated on every benchmark, and ends after null. Standard input is its lifeline: when its
other end closes before, it drops what it does and ends.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading
from pathlib import Path

from reval_core.config_files import parse_config
from reval_core.errors import RevalError
from reval_core.home import Home
from tasks.evaluate import evaluate
from tasks.open_run import open_run
from tasks.progress import Progress
from tasks.run import Here

Orders = queue.Queue[tuple[int, str] | None]


def main() -> None:
    """Evaluate what is asked for until nobody asks any more."""
    for handler in logging.getLogger().handlers:  # Prefect's; the attempt's log file has everything
        handler.setLevel(logging.WARNING)
    config = parse_config(json.loads(sys.stdin.readline()))
    orders: Orders = queue.Queue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    try:
        with open_run(config, Home(Path(sys.argv[1])), progress=Progress(quiet=True), training=False) as run:
            while (order := orders.get()) is not None:
                iteration, policy_id = order
                for benchmark in config.evaluation.benchmarks:
                    evaluate(Here(run, iteration), policy_id, benchmark)
                print(json.dumps([iteration, policy_id]), flush=True)
    except RevalError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(0)


def _listen(orders: Orders) -> None:
    for line in sys.stdin:
        order = json.loads(line)
        orders.put(None if order is None else (order[0], order[1]))
        if order is None:
            return
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
