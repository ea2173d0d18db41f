"""What a learning step is made of: the settings that its lineage records, and stored trajectories as examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reval_core.config import LoraConfig, ObjectiveConfig, OptimizerConfig
from reval_core.learning.batch import TrainingExample
from reval_core.learning.objectives import objective_for
from reval_core.store import trajectories

Pair = tuple[float, float]
"""log pi_ref and V_ref(s1) of a trajectory, in nats."""


def learning_settings(
    objective: ObjectiveConfig, optimizer: OptimizerConfig, compute_dtype: str, lora: LoraConfig | None = None
) -> dict[str, Any]:
    """What a lineage records of the settings: everything that an update depends on, and nothing else.

    What came later, adapters and other optimizers, is named only where it is used, so older policies keep their ids.
    """
    learned_by = objective_for(objective)
    unnamed = {"max_skipped_in_a_row"}  # it only ends a run
    if optimizer.use == "adamw":
        unnamed.add("use")
    settings: dict[str, Any] = {
        # how many updates a round has and when the reference changes is told by the steps themselves
        "objective": objective.model_dump(mode="json", include={"use", "policy_temperature", *learned_by.reads}),
        "objective_version": learned_by.version,
        "optimizer": optimizer.model_dump(mode="json", exclude=unnamed),
        "compute_dtype": compute_dtype,
    }
    return settings if lora is None else settings | {"lora": lora.model_dump(mode="json", exclude={"dropout"})}


def configs_of(settings: Mapping[str, Any]) -> tuple[ObjectiveConfig, OptimizerConfig]:
    """The settings out of what a lineage recorded."""
    return ObjectiveConfig(**settings["objective"]), OptimizerConfig(**settings["optimizer"])


def example_of(
    tokens: trajectories.Tokens, group_id: str, reward: float = 0.0, weight: float = 1.0, score: Pair | None = None
) -> TrainingExample:
    """A stored trajectory as one of an update, with the reference's scalars where the objective needs them."""
    return TrainingExample(
        trajectory_id=tokens.trajectory_id,
        group_id=group_id,
        prompt_ids=tokens.prompt_ids,
        response_ids=tokens.response_ids,
        reward=reward,
        weight=weight,
        ref_logprob=score[0] if score else None,
        ref_root_value=score[1] if score else None,
    )
