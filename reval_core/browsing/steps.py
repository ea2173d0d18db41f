"""The implicit step rewards of a completion: beta * (log pi(a_t|s_t) - log pi_ref(a_t|s_t)), token by token.

Policy and reference are loaded from their saved folders and score the stored tokens on the path on which learning
scores them, in the precision and at the temperature that the policy's lineage records. Nothing is learned again and
nothing is written: a policy that is not saved is an error that says how to get it back.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from reval_core.config import LoraConfig
from reval_core.errors import PolicyError
from reval_core.home import Home
from reval_core.learning.reference import score_examples, scoring_mode
from reval_core.policies.base import BasePolicy
from reval_core.policies.folder import base_policy_id, load_tokenizer, read_manifest, tokenizer_id
from reval_core.policies.steps import example_of
from reval_core.policies.weights import AdapterWeights, Weights, WholeWeights
from reval_core.store import Store, lineage, trajectories
from reval_core.store import statements as sql
from reval_core.store.lineage import PolicyRecord

Floats = npt.NDArray[np.float64]
HELD = 2
"""Models that stay in memory: a policy and its reference, for the next completion that is looked at."""
KEPT = 64
"""Results that are kept."""


@dataclass(frozen=True, eq=False)
class Steps:
    """What a policy gives each token of a completion beyond its reference."""

    policy_id: str
    reference_policy_id: str
    beta: float | None
    """None where the objective has no scale; then `reward` is the log-ratio itself, in nats."""
    logprob: Floats
    """[T] log pi(a_t|s_t), nats"""
    ref_logprob: Floats
    """[T] log pi_ref(a_t|s_t), nats"""
    pieces: tuple[str, ...]
    """The text of each token."""

    @property
    def reward(self) -> Floats:
        """[T] beta * (log pi - log pi_ref)"""
        return (1.0 if self.beta is None else self.beta) * (self.logprob - self.ref_logprob)


class Scorer:
    """Scores completions of one root, one at a time; the models that it used last stay in memory.

    Args:
        home: the root.
        store: where the tokens and the lineages stand.
        device: torch device of the models; the CPU, so that a run keeps its GPU to itself.
    """

    def __init__(self, home: Home, store: Store, device: str = "cpu") -> None:
        self._home, self._store, self._device = home, store, device
        self._alone = threading.Lock()
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._found: OrderedDict[tuple[str, str, str], Steps] = OrderedDict()

    def steps(self, trajectory_id: str, policy_id: str, reference_policy_id: str) -> Steps:
        """The implicit step rewards of a stored completion.

        Raises:
            PolicyError: a policy is not saved, has another tokenizer than the completion, or its folder is damaged.
            StoreError: the tokens of the completion, or a policy, are not in the store.
        """
        key = (trajectory_id, policy_id, reference_policy_id)
        with self._alone:
            if key not in self._found:
                self._found[key] = self._score(*key)
            self._found.move_to_end(key)
            while len(self._found) > KEPT:
                self._found.popitem(last=False)
            return self._found[key]

    def pieces(self, trajectory_id: str, policy_id: str) -> list[tuple[int, str]]:
        """(id, text) of each token of a completion, by the tokenizer of a saved policy."""
        with self._store.read() as connection:
            record = lineage.policy(connection, policy_id)
            ids = trajectories.tokens(connection, [trajectory_id])[trajectory_id].response_ids
        return list(zip(ids.tolist(), self._pieces(record, ids, trajectory_id), strict=True))

    def _score(self, trajectory_id: str, policy_id: str, reference_policy_id: str) -> Steps:
        with self._store.read() as connection:
            policy = lineage.policy(connection, policy_id)
            reference = lineage.policy(connection, reference_policy_id)
            tokens = trajectories.tokens(connection, [trajectory_id])[trajectory_id]
        settings = policy.settings if policy.kind == "learned" else {}
        objective: Mapping[str, Any] = settings.get("objective", {})
        compute_dtype = settings.get("compute_dtype", "float32")
        temperature = objective.get("policy_temperature", 1.0)
        pieces = self._pieces(policy, tokens.response_ids, trajectory_id)
        logprob, ref_logprob = (
            self._token_logprobs(self._model(record, settings), tokens, compute_dtype, temperature)
            for record in (policy, reference)
        )
        beta = objective.get("beta")
        return Steps(policy_id, reference_policy_id, beta, logprob, ref_logprob, tuple(pieces))

    def _token_logprobs(
        self, model: nn.Module, tokens: trajectories.Tokens, compute_dtype: str, temperature: float
    ) -> Floats:
        """[T] log-probabilities of the response's tokens, nats."""
        with scoring_mode(model, compute_dtype, packed=False):
            _, scores = score_examples(
                model,
                [example_of(tokens, tokens.trajectory_id)],
                gradient=False,
                packed=False,
                token_logprobs=True,
                temperature=temperature,
            )
        assert scores.token_logprob is not None
        found = scores.token_logprob[0].double().cpu().numpy()  # [P + T]
        return found[-len(tokens.response_ids) :]

    def _model(self, record: PolicyRecord, settings: Mapping[str, Any]) -> nn.Module:
        """A policy's model, in the form in which policies of these settings compute."""
        compute_dtype, lora = settings.get("compute_dtype", "float32"), settings.get("lora")
        key = f"{record.policy_id} {compute_dtype} {lora}"
        if key not in self._models:
            while len(self._models) >= HELD:
                self._models.popitem(last=False)
            self._models[key] = self._load(record, compute_dtype, lora).eval()
        self._models.move_to_end(key)
        return self._models[key]

    def _load(self, record: PolicyRecord, compute_dtype: str, lora: Mapping[str, Any] | None) -> nn.Module:
        folder = self._folder(record)
        manifest = read_manifest(folder) if record.kind == "learned" else None
        base = record
        if manifest is not None and manifest.base_policy_id is not None:
            with self._store.read() as connection:
                base = lineage.policy(connection, manifest.base_policy_id)
        if base.kind == "base" and (found := base_policy_id(self._folder(base))) != base.policy_id:
            raise PolicyError(f"{self._folder(base)} should hold {base.policy_id}, and its files are those of {found}.")
        how: dict[str, Any] = {"device": self._device, "compute_dtype": compute_dtype}
        files = BasePolicy(self._folder(base), base.policy_id, base.tokenizer_id)
        weights: Weights = (
            WholeWeights(files, **how) if lora is None else AdapterWeights(files, LoraConfig(**lora), **how)
        )
        return weights.base() if record.kind == "base" else weights.saved(folder, record.policy_id)[0]

    def _folder(self, record: PolicyRecord) -> Path:
        """Where the policy is saved."""
        if record.kind == "foreign":
            raise PolicyError(f"{record.policy_id} is a model of another system: nothing but its name is known here.")
        folder = None if record.folder is None else self._home.root / record.folder
        if folder is not None and folder.is_dir():
            return folder
        if record.kind == "base":
            raise PolicyError(f"The base model of {record.policy_id} is no more at {folder}. Put it back there.")
        raise PolicyError(
            f"{record.policy_id} is not saved: its weights were pruned, or never written. `reval evaluate "
            f"{record.policy_id}` learns it again from stored trajectories and saves it; or choose a saved policy."
        )

    def _pieces(self, record: PolicyRecord, ids: npt.NDArray[Any], trajectory_id: str) -> list[str]:
        """The text of each token, by the policy's own tokenizer."""
        folder = self._folder(record)
        with self._store.read() as connection:
            known = sql.row(connection, "browsing", "tokenizer", trajectory=trajectory_id)
        if known is None or tokenizer_id(folder) != known[0]:
            raise PolicyError(
                f"{record.policy_id} has another tokenizer than the completion was put into tokens with, so these ids "
                "mean other words to it. Choose a policy of the same base."
            )
        tokenizer = load_tokenizer(folder)
        return [tokenizer.decode([token], skip_special_tokens=False) for token in ids.tolist()]
