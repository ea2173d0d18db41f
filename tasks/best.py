"""The best policy of a run by a chosen metric: told on its page, and named in ``runs/RUN/best.json``.

The metric is retention.keep_best, which also keeps that policy's folder from being removed; by default avg@k of the
first benchmark, while nothing is removed by default either. A metric without a benchmark is the mean over those of the
run.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from reval_core.config import Config
from reval_core.errors import StoreError
from reval_core.home import Home
from reval_core.store.files import write_text
from tasks.evaluate import current_evaluations
from tasks.run import Run


@dataclass(frozen=True)
class Best:
    """The learned policy with the highest value."""

    policy_id: str
    rounds: int
    """That it has learned."""
    metric: str
    value: float

    def __str__(self) -> str:
        """Such as ``amc/avg@16 0.612 after 40 rounds``."""
        return f"{self.metric} {self.value:.3f} after {self.rounds} rounds"


def chosen_metric(config: Config) -> str | None:
    """BENCHMARK/METRIC, or METRIC for the mean over all; None for a run without benchmarks."""
    if config.retention.keep_best is not None or not config.evaluation.benchmarks:
        return config.retention.keep_best
    return f"{config.evaluation.benchmarks[0]}/avg@{config.evaluation.samples_per_problem}"


def best_of(run: Run) -> Best | None:
    """The best learned policy, the newest of equals; None where nothing that was learned has been evaluated by it."""
    wanted = chosen_metric(run.config)
    if wanted is None:
        return None
    benchmark, _, metric = wanted.rpartition("/")
    values: dict[tuple[int, str], dict[str, float]] = defaultdict(dict)
    for row in current_evaluations(run):
        fits = row["metric"] == metric and benchmark in ("", row["benchmark"])
        if fits and row["iteration"] >= 0 and row["value"] is not None:
            values[row["iteration"], row["policy_id"]][row["benchmark"]] = row["value"]
    most = max((len(of_policy) for of_policy in values.values()), default=0)  # compared on the same benchmarks only
    means = {place: sum(v.values()) / most for place, v in values.items() if len(v) == most}
    if not means:
        return None
    iteration, policy_id = max(means, key=lambda place: (means[place], place[0]))
    shown = f"{Path(benchmark).name}/{metric}" if benchmark else metric
    return Best(policy_id, iteration + 1, shown, means[iteration, policy_id])


def link_best(run: Run) -> Best | None:
    """Name the best policy and its folder in ``runs/RUN/best.json``, where it is saved.

    A file and no symbolic link: programs that copy a root would make a second policy of that.
    """
    best = best_of(run)
    if best is None or not (folder := run.home.policies / best.policy_id).is_dir():
        return None
    link = link_of(run.home, run.run_id)
    told = {**asdict(best), "folder": str(folder.relative_to(run.home.root))}
    write_text(link, json.dumps(told, indent=2) + "\n")
    return best


def link_of(home: Home, run_id: str) -> Path:
    """Where the best policy of a run is named."""
    return home.root / "runs" / run_id / "best.json"


def linked_policy(home: Home, run_id: str) -> str:
    """The policy that is named as a run's best.

    Raises:
        StoreError: none is named yet, or its folder is gone.
    """
    link = link_of(home, run_id)
    told = json.loads(link.read_text(encoding="utf-8")) if link.is_file() else None
    if told is None or not (home.root / told["folder"]).is_dir():
        raise StoreError(
            f"Run {run_id} has no best policy here: nothing that it learned was evaluated, or its folder was removed "
            f"({link}). See `reval sql evaluation_curve --param run={run_id}`."
        )
    return str(told["policy_id"])
