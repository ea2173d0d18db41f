"""The configuration of a run: one tree, complete, with a sentence and a unit for every field.

Unknown keys are errors that name the nearest known key. Values are kept as written: ``${REVAL_DATA}`` in a path stays
so in the stored configuration and is expanded only where the file is opened, so a secret in the environment
can never reach the store, a digest or a report. Fields marked as not part of identity (worker counts, logging,
evaluation, ...) do not change what is learned, and changing them continues the same run.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from reval_core import yaml_text
from reval_core.config_engine import EngineConfig
from reval_core.config_evaluation import EvaluationConfig, ProblemFile
from reval_core.config_replay import ReplayConfig
from reval_core.health import HealthConfig
from reval_core.home import expand
from reval_core.identity import digest
from reval_core.section import Section, added, neutral, variable_name
from reval_core.upkeep import (
    CheckpointConfig,
    LearningConfig,
    LimitsConfig,
    OfflineConfig,
    RetentionConfig,
    StoreConfig,
    TrackingConfig,
)


class RunConfig(Section):
    """What the run is called and how long it goes on."""

    name: str = neutral("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run, for people.")
    seed: int = Field(0, ge=0, description="Seed of problem order, samples and draws.")
    iterations: int = neutral(30, ge=0, description="Generation rounds; raising it continues the run.")


class LoraConfig(Section):
    """Low-rank adapters (library peft): the base stays as it is, only they are learned. Left out: all weights are."""

    rank: int = Field(32, ge=1, description="Rank of each adapter.")
    alpha: float = Field(64.0, gt=0, description="An adapter's product is scaled by alpha / rank.")
    targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="Last parts of the names of the linear layers that have one; never the LM head or embeddings.",
    )
    seed: int = Field(0, ge=0, description="Seed of the adapters' first factors; the second ones begin at 0.")
    dropout: float = Field(0.0, description="0: policy and reference are scored by the same function, without noise.")

    @field_validator("dropout")
    @classmethod
    def _none(cls, value: float) -> float:
        if value != 0:
            raise ValueError(
                f"dropout is {value:g}, and only 0 makes sense here: a residual compares the policy's score with the "
                "reference's, and noise in one of them would be learned from as if it were reward"
            )
        return value


class ModelConfig(Section):
    """The base model."""

    path: str = Field("builtin:tiny", description="Folder in Hugging Face layout, hub id, builtin:tiny, builtin:bytes.")
    revision: str | None = Field(None, description="Hub revision; a commit hash makes the base exact.")
    seed: int = Field(0, ge=0, description="Seed of a built-in model's own training or random weights.")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Compute precision; masters stay float32.")
    device: str = neutral(
        "auto",
        description="auto, cpu, cuda or cuda:N; who comes second waits. cpu:N is the CPU under another name.",
    )
    threads: int | None = Field(None, ge=1, description="CPU threads of torch; bits depend on it. None: torch's own.")
    token_env: str = neutral("HF_TOKEN", description="Name of the environment variable with the hub's token.")
    gradient_checkpointing: bool | Literal["gates", "mlp"] = Field(
        False,
        description="Recomputed in the backward pass, not kept: layers (true), MLPs (mlp), their products (gates).",
    )
    kernels: Literal["torch", "liger"] = Field(
        "torch", description="liger: fused norms and MLPs of liger-kernel, for GPUs (pip install -e '.[gpu]')."
    )
    reference: Literal["device", "host"] = neutral(
        "device", description="Where a GPU run keeps the reference while it learns; from the host it comes to score."
    )
    lora: LoraConfig | None = added(
        None, description="Learn adapters over the frozen base (pip install -e '.[lora]'); None: all weights."
    )

    @field_validator("token_env")
    @classmethod
    def _name(cls, value: str) -> str:
        return variable_name(value)

    @model_validator(mode="after")
    def _one_copy(self) -> ModelConfig:
        if self.lora is not None and self.reference == "host":
            raise ValueError(
                "model.reference 'host' moves a second copy of the weights away, and with model.lora there is none: "
                "the reference is the base or an adapter over it. Leave it at 'device'."
            )
        return self


DECIDED = frozenset(
    {"conversation", "messages", "chat_template", "tokenize", "add_generation_prompt", "continue_final_message"}
)
"""Arguments of a chat template that are not the user's."""


class PromptConfig(Section):
    """How a problem becomes token ids."""

    template: str = Field(
        "tokenizer", description="tokenizer (its chat template), none, or a Jinja file, read when a run is configured."
    )
    system: str | None = Field(None, description="System message put before the conversation.")
    prefix: str = Field("", description="Text before the question (the last user message).")
    suffix: str = Field("", description="Text after the question (the last user message).")
    template_args: dict[str, Any] = Field(default_factory=dict, description="Extra variables for the template.")
    stop: tuple[str, ...] = Field((), description="Single-token strings that end a response beside EOS.")

    @field_validator("template_args")
    @classmethod
    def _variables_only(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(DECIDED & value.keys()):
            raise ValueError(f"{taken[0]!r} is no variable of yours: how a prompt is made of a problem decides it")
        return value

    @field_validator("template")
    @classmethod
    def _text_of_the_file(cls, value: str) -> str:
        # the text, not its path, is the run's: an edited file is another prompt, a deleted one is no loss
        if value in ("tokenizer", "none") or "{{" in value or "{%" in value:
            return value
        path = expand(value)
        if not path.is_file():
            raise ValueError(f"there is no file {path}; use 'tokenizer', 'none' or a Jinja file")
        text = path.read_text(encoding="utf-8")
        if "{{" not in text and "{%" not in text:
            raise ValueError(f"{path} is no Jinja template: it has neither {{{{ nor {{%")
        return text


class ProblemSource(ProblemFile):
    """Problems to train on."""

    weight: float = Field(1.0, gt=0, description="Times each problem is drawn in an epoch; 0.5 draws a seeded half.")


class RolloutConfig(Section):
    """Generation of one round."""

    prompts_per_iteration: int = Field(32, ge=1, description="Problems in a round.")
    rollouts_per_prompt: int = Field(8, ge=1, description="Responses per problem (the group).")
    max_prompt_tokens: int = Field(1024, ge=1, description="A longer prompt is an error.")
    max_new_tokens: int = Field(1024, ge=1, description="Response tokens at most; a response cut here is truncated.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling mass; 1 is off.")
    top_k: int = Field(0, ge=0, description="Sample among the k likeliest tokens; 0 is off.")
    token_budget: int | None = added(
        None, ge=1, description="Response tokens of a round at most: the longest are cut, all at one length. None: off."
    )
    deadline_s: float | None = added(
        None, gt=0, description="Seconds of sampling in a round, after which the unended are cut and kept. None: off."
    )
    engine: EngineConfig = EngineConfig()


class RewardConfig(Section):
    """Verification of answers and the reward that is learned from."""

    use: str = Field("math", description="math, or package.module:attribute of your own reward.")
    args: dict[str, Any] = Field(default_factory=dict, description="Arguments of your own reward.")
    extraction: Literal["boxed", "lenient"] = Field("boxed", description="Where an answer is looked for.")
    policy: dict[str, Any] = Field(default_factory=dict, description="Options of GradingPolicy.")
    transform: Literal["binary", "centred", "signed", "raw"] = Field(
        "binary", description="0/1; minus the group's mean; +1/-1; or a custom reward's own number."
    )
    truncated: Literal["keep", "mask_negative", "drop"] = Field(
        "keep", description="A cut response: keep it, take it as wrong, or leave it out of learning."
    )
    workers: int = neutral(2, ge=1, description="Grading processes.")
    timeout_s: float = neutral(2.0, gt=0, description="Hard limit for one answer in seconds.")
    memory_gb: float = neutral(2.0, gt=0, description="Memory limit of a grading process in GB.")
    max_failure_share: float = neutral(0.05, ge=0, le=1, description="More timeouts and errors than this stop the run.")

    @property
    def knows_no_wrong(self) -> bool:
        """Whether the reward is a number of its own, of which nobody says where right begins."""
        return self.use != "math" and self.transform == "raw"


class UpdatesConfig(Section):
    """Optimizer steps per round (K = on_policy + off_policy)."""

    on_policy: int = Field(1, ge=0, description="Updates on the whole fresh batch, first.")
    off_policy: int = Field(1, ge=0, description="Updates on batches of the same size drawn from the window.")

    @property
    def total(self) -> int:
        """K."""
        return self.on_policy + self.off_policy


class ObjectiveConfig(Section):
    """What is minimised."""

    use: str = Field(
        "reval", description="reval, tbrm, regression, vargrad, logz, grpo, dr_grpo, package.module:attribute."
    )
    beta: float = Field(0.002, gt=0, description="Weight of the KL to the reference; beta times length is about 10.")
    value_gradient: Literal["full", "detach"] = Field("full", description="Gradient through V(s1); detach: ablation.")
    policy_temperature: float = Field(1.0, gt=0, description="The deployed policy is softmax(logits / this).")
    clip_low: float = Field(0.2, ge=0, description="Lower clip of the token ratio (grpo, dr_grpo).")
    clip_high: float = Field(0.28, ge=0, description="Upper clip of the token ratio (grpo, dr_grpo).")
    updates: UpdatesConfig = UpdatesConfig()
    reference_reset_every: int | None = Field(None, ge=1, description="Rounds between reference resets; None: never.")


class OptimizerConfig(Section):
    """AdamW on float32 master weights."""

    use: Literal["adamw", "adamw_8bit", "adamw_paged"] = added(
        "adamw",
        description="adamw; of bitsandbytes (pip install -e '.[lean]'): moments in 8 bits, or paged out to the host.",
    )
    lr: float = Field(1e-6, gt=0, description="Learning rate.")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Decay of the two moments, each below 1.")
    eps: float = Field(1e-8, gt=0, description="Added to the root of the second moment.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled decay; above 0 it moves weights without reward.")
    clip_norm: float = Field(1.0, gt=0, description="Global gradient norm at most.")
    warmup_updates: int = Field(0, ge=0, description="Updates over which the learning rate rises linearly.")
    max_tokens_per_micro_batch: int = Field(
        16384, ge=1, description="Tokens in one forward and backward, padding counted; a longer response stands alone."
    )
    packing: bool = Field(
        False, description="Responses stand one after another without padding: for GPUs; a CPU is faster with padding."
    )
    max_skipped_in_a_row: int = neutral(3, ge=1, description="Non-finite updates in a row that stop the run.")

    @field_validator("betas")
    @classmethod
    def _decays(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError(f"each lies from 0 to below 1, where a moment would never decay; given {list(value)}")
        return value


class Config(Section):
    """Everything that decides a run."""

    run: RunConfig = RunConfig()
    model: ModelConfig = ModelConfig()
    prompt: PromptConfig = PromptConfig()
    problems: tuple[ProblemSource, ...] = Field((), description="Where training problems come from.")
    rollouts: RolloutConfig = RolloutConfig()
    reward: RewardConfig = RewardConfig()
    replay: ReplayConfig = ReplayConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    learning: LearningConfig = LearningConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    store: StoreConfig = StoreConfig()
    retention: RetentionConfig = RetentionConfig()
    health: HealthConfig = HealthConfig()
    limits: LimitsConfig = LimitsConfig()
    tracking: TrackingConfig = TrackingConfig()
    offline: OfflineConfig | None = neutral(
        None, description="Stored trajectories to learn from; the ids that are found are the run's identity."
    )

    @property
    def window(self) -> ReplayConfig:
        """What replay draws from: the FIFO window, or all trajectories of an offline run."""
        if self.offline is None:
            return self.replay
        return self.replay.model_copy(update={"capacity": None, "excludes_fresh": False})

    @property
    def longest_sequence(self) -> int:
        """Prompt and response tokens of the longest sequence that a run may sample."""
        new = max(self.rollouts.max_new_tokens, self.evaluation.max_new_tokens or 0)
        return self.rollouts.max_prompt_tokens + new

    @property
    def batch_size(self) -> int:
        """Trajectories generated in a round (B = prompts x rollouts)."""
        return self.rollouts.prompts_per_iteration * self.rollouts.rollouts_per_prompt

    @model_validator(mode="after")
    def _combinations(self) -> Config:
        # not by min_length, which also complains when an item of the list is wrong
        if not self.problems and self.offline is None:
            raise ValueError("problems: name at least one source, such as - path: builtin:arithmetic/train.")
        if self.reward.transform == "centred" and self.rollouts.rollouts_per_prompt == 1:
            raise ValueError(
                "reward.transform 'centred' subtracts the group's mean, which with rollouts.rollouts_per_prompt = 1 "
                "leaves every reward 0. Use 'binary', or at least 2 rollouts per prompt."
            )
        if self.reward.transform == "centred" and (self.replay.baseline != "none" or self.replay.successes):
            raise ValueError(
                "reward.transform 'centred' has subtracted the group's mean for good, so that replay.baseline would "
                "subtract from it again and replay.successes could not tell right from wrong. Use 'binary'."
            )
        budget = self.rollouts.token_budget
        if budget is not None and budget < self.batch_size:
            raise ValueError(
                f"rollouts.token_budget is {budget}, less than a token for each of the {self.batch_size} responses of "
                "a round (prompts_per_iteration x rollouts_per_prompt). Raise it to some hundreds of tokens for each."
            )
        if self.objective.updates.total == 0:
            raise ValueError("objective.updates: on_policy and off_policy are both 0, so nothing would be learned.")
        self._check_window()
        self._check_ranks()
        return self

    def _check_ranks(self) -> None:
        if self.learning.ranks == 1:
            return
        if self.model.lora is not None:
            raise ValueError("learning.ranks above 1 shares whole weights, and model.lora learns adapters: leave one.")
        if self.optimizer.use != "adamw":
            raise ValueError(f"learning.ranks above 1 takes optimizer.use 'adamw' only, not {self.optimizer.use!r}.")

    def _check_window(self) -> None:
        replay, batch = self.replay, self.batch_size
        if not self.objective.updates.off_policy or replay.capacity is None or self.offline is not None:
            return
        held = replay.capacity * (batch if replay.unit == "rounds" else 1)
        if held < batch:
            raise ValueError(
                f"replay.capacity is {replay.capacity}, smaller than one batch of {batch} (prompts_per_iteration x "
                "rollouts_per_prompt). Raise it to at least one batch."
            )
        if replay.excludes_fresh and held < 2 * batch:
            raise ValueError(
                f"replay.excludes_fresh leaves out the batch of {batch} that the window of {held} holds, so little or "
                "nothing is left to draw. Raise replay.capacity to at least two batches."
            )

    def identity(self) -> dict[str, Any]:
        """The part of the tree that decides what is learned, as plain JSON data."""
        return _identity_part(self)

    @property
    def config_id(self) -> str:
        """Digest of ``identity()``."""
        return digest("cfg", self.identity())

    def flat(self) -> dict[str, Any]:
        """Dotted key to value, for tables, differences and MLflow parameters."""
        return flatten(self.model_dump(mode="json"))

    def to_yaml(self) -> str:
        """The resolved configuration as YAML, in the order of the tree."""
        return yaml_text.write(self.model_dump(mode="json"))


def _identity_part(section: BaseModel) -> dict[str, Any]:
    part: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        kept = extra.get("identity") if isinstance(extra, dict) else None
        value = getattr(section, name)
        if kept is False or (kept == "unless default" and value == field.default):
            continue
        if isinstance(value, BaseModel):
            inner = _identity_part(value)
            if inner:
                part[name] = inner
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            part[name] = [_identity_part(item) for item in value]
        else:
            part[name] = list(value) if isinstance(value, tuple) else value
    return part


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` to ``{"a.b": 1}``; lists of mappings get their index as a key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
