"""The verifier's path of a stored completion: by today's verifier, with the settings of the run that sampled it."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass

from reval_core.config import RewardConfig
from reval_core.config_files import parse_config
from reval_core.errors import ConfigError
from reval_core.verification import Verifier, grading_policy
from reval_core.verification.explain import Step, explain

HELD = 4
"""Verifiers that stay open: one for each way of grading that was looked at last."""


@dataclass(frozen=True)
class Path:
    """The steps, or why there are none."""

    steps: tuple[Step, ...]
    note: str | None


class Paths:
    """Explains verdicts; algebra is done in processes that end with `close`."""

    def __init__(self) -> None:
        self._alone = threading.Lock()
        self._verifiers: OrderedDict[str, Verifier] = OrderedDict()

    def path(self, gold: str, completion: str, config: str | None, verifier_id: str) -> Path:
        """How the verdict on a completion comes about.

        Args:
            gold: what it was graded against.
            completion: the whole text.
            config: of the run that sampled it, as JSON; None: the default reward, as for imports.
            verifier_id: of the stored verdict; where today's is another one the note says so.
        """
        try:
            reward = RewardConfig() if config is None else parse_config(json.loads(config)).reward
        except ConfigError as error:
            return Path((), f"This version does not read the configuration of its run: {error}")
        if reward.use != "math":
            return Path((), f"It was graded by {reward.use}, which tells nothing of its way but the details above.")
        with self._alone:
            verifier = self._verifier(reward)
            steps = explain(verifier, gold, completion, completion=True)
        if verifier.verifier_id == verifier_id:
            return Path(tuple(steps), None)
        return Path(
            tuple(steps),
            f"This is the way of today's verifier, {verifier.verifier_id}; the verdict is by {verifier_id}.",
        )

    def _verifier(self, reward: RewardConfig) -> Verifier:
        key = reward.model_dump_json()
        if key not in self._verifiers:
            while len(self._verifiers) >= HELD:
                self._verifiers.popitem(last=False)[1].close()
            policy = grading_policy(reward.policy)
            self._verifiers[key] = Verifier(1, reward.timeout_s, reward.extraction, policy, memory_gb=reward.memory_gb)
        self._verifiers.move_to_end(key)
        return self._verifiers[key]

    def close(self) -> None:
        """End all worker processes."""
        with self._alone:
            while self._verifiers:
                self._verifiers.popitem()[1].close()
