"""Sections of the configuration that are no part of identity: what looks after a run, and what is learned offline."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, field_validator, model_validator

from reval_core.home import expand
from reval_core.redaction import holds_secret
from reval_core.section import Section, neutral


class CheckpointConfig(Section):
    """Saved policies with their optimizer state."""

    every: int = neutral(
        10, ge=1, description="Rounds between checkpoints; the rounds since are learned again, not generated."
    )


class StoreConfig(Section):
    """The database."""

    flush_seconds: float = neutral(30.0, gt=0, description="Seconds of generated work at risk at most.")
    lock_wait_s: float = neutral(600.0, gt=0, description="Seconds to wait for a program that holds the database.")
    snapshot_every: int | None = neutral(
        1,
        ge=1,
        description="Rounds between snapshots for slow readers, one in two minutes at most; None: when one is needed.",
    )


class RetentionConfig(Section):
    """What is removed after a checkpoint, or by `reval prune`: by default nothing, and never what a run rests on."""

    payloads: Literal["keep", "archive", "drop"] = neutral(
        "keep", description="Tokens and texts outside every window: keep, archive (as Parquet), or drop for good."
    )
    after_rounds: int = neutral(0, ge=0, description="Rounds since they were sampled until payloads may go.")
    evaluations: bool = neutral(False, description="Archive or drop the payloads of evaluations, too.")
    keep_last: int | None = neutral(None, ge=1, description="Newest checkpoints that stay.")
    keep_best: str | None = neutral(
        None, min_length=1, description="Metric whose best policy stays, as avg@16, or of one benchmark: amc/avg@16."
    )
    keep_every: int | None = neutral(None, ge=1, description="Checkpoints of every so many rounds stay.")
    keep_evaluated: bool = neutral(True, description="Policies that were saved to be evaluated stay.")
    mlflow_days: float | None = neutral(None, ge=0, description="Days after which MLflow artifacts go.")
    prefect_days: float | None = neutral(None, ge=0, description="Days after which Prefect's results go.")
    log_days: float | None = neutral(None, ge=0, description="Days after which log files go.")


StageName = Literal["generate", "verify", "score", "rescore", "persist", "learn", "checkpoint", "evaluate", "report"]


class LearningConfig(Section):
    """The processes that learn: the run's own, or ranks that share weights, gradients and moments."""

    ranks: int = neutral(1, ge=1, description="Ranks, each with a device of its own; 1: the run's process learns.")
    nodes: int = neutral(1, ge=1, description="Machines that the ranks are on, each with as many of them.")
    rendezvous: str | None = neutral(
        None,
        pattern=r"^[^:\s]+:\d+$",
        description="HOST:PORT of this machine, where ranks of other machines find it; None: 127.0.0.1 alone.",
    )
    folder: str | None = neutral(
        None,
        description="Where run and ranks exchange files, seen by all machines; None: under the root.",
    )
    timeout_s: float = neutral(600.0, gt=0, description="Seconds that a rank waits for another within an update.")

    @property
    def local_ranks(self) -> int:
        """Ranks on this machine."""
        return self.ranks // self.nodes

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port of the rendezvous."""
        if self.rendezvous is None:
            return None
        host, _, port = self.rendezvous.rpartition(":")
        return host, int(port)

    @model_validator(mode="after")
    def _fits(self) -> LearningConfig:
        if self.ranks % self.nodes:
            raise ValueError(f"learning.ranks is {self.ranks}, which {self.nodes} machines cannot have in equal parts.")
        if self.nodes > 1 and self.rendezvous is None:
            raise ValueError("learning.nodes is above 1: set learning.rendezvous to HOST:PORT of this machine.")
        if self.nodes > 1 and self.folder is None:
            raise ValueError("learning.nodes is above 1: set learning.folder to one that all machines see.")
        return self


class LimitsConfig(Section):
    """When the watcher ends a stage that is stuck or too large, and how often a run is then tried again."""

    stalled_s: float | None = neutral(1800.0, gt=0, description="Seconds of a stage without progress; None: no limit.")
    stage_s: dict[StageName, PositiveFloat] = neutral(default_factory=dict, description="Seconds in all, by stage.")
    memory_gb: float | None = neutral(None, gt=0, description="Resident memory of the process and its children in GB.")
    grace_s: float = neutral(20.0, gt=0, description="Seconds to end in order before the process is killed.")
    retries: int = neutral(1, ge=0, description="Fresh processes after ended ones, in one command (train, learn).")


class TrackingConfig(Section):
    """MLflow."""

    experiment: str = neutral("reval", description="MLflow experiment.")
    uri: str | None = neutral(None, description="Tracking URI; None: a SQLite file under the root.")
    system_metrics: bool = neutral(True, description="Log CPU, memory and GPU use.")

    @field_validator("uri")
    @classmethod
    def _without_secret(cls, uri: str | None) -> str | None:
        if uri is not None and "://" not in uri:
            raise ValueError("write an address with its scheme, such as http://127.0.0.1:5000 or sqlite:///mlflow.db")
        if uri is not None and holds_secret(uri):
            raise ValueError(
                "a name or password in the address would be stored with the run; set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD in the environment instead"
            )
        return uri


class OfflineConfig(Section):
    """Stored trajectories to learn from (`reval learn`), instead of sampling any."""

    trajectories: str = neutral(
        description="run:RUN, window:RUN, a named query, a .sql file, or SQL that gives a column trajectory_id."
    )
    parameters: dict[str, str] = neutral(default_factory=dict, description="Values of $name in the query.")

    @field_validator("trajectories")
    @classmethod
    def _text_of_the_file(cls, value: str) -> str:
        # the text, not its path, is recorded with the run
        if not value.strip().endswith(".sql"):
            return value
        path = expand(value.strip())
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path.read_text(encoding="utf-8")
