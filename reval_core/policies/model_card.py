"""The page of an exported policy: a header that the hub reads, and how the model came to be, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reval_core import __version__, cards

SHOWN = (
    "objective.use", "objective.beta", "objective.policy_temperature", "objective.updates.on_policy",
    "objective.updates.off_policy", "objective.reference_reset_every", "replay.capacity", "replay.unit", "replay.draw",
    "reward.use", "reward.transform", "reward.extraction", "reward.truncated", "rollouts.prompts_per_iteration",
    "rollouts.rollouts_per_prompt", "rollouts.temperature", "rollouts.top_p", "rollouts.max_prompt_tokens",
    "rollouts.max_new_tokens", "optimizer.use", "optimizer.lr", "optimizer.clip_norm", "optimizer.warmup_updates",
    "model.dtype", "model.lora.rank", "prompt.template", "prompt.system", "prompt.suffix", "run.seed",
)  # fmt: skip
"""Settings that say what was learned and how."""


@dataclass(frozen=True)
class Origin:
    """Where a policy comes from."""

    policy_id: str
    run_id: str
    rounds: int
    """Generation rounds that it learned from, those of the run's ancestors too."""
    updates: int
    responses: int
    problems: int
    chain: tuple[str, ...]
    """The policy's run and the runs that it was forked from, newest first."""
    settings: Mapping[str, Any]
    """Flat configuration of the run."""
    versions: Mapping[str, Any]
    weights_checksum: str


def model_card(name: str, origin: Origin, results: Sequence[Mapping[str, Any]]) -> str:
    """README.md of a model folder.

    Args:
        name: of the folder.
        origin: of the policy.
        results: benchmark, metric, value, low, high (None where unknown), problem_count, samples_per_problem,
            verifier_id of each metric that the store has of it.
    """
    base = str(origin.settings.get("model.path", ""))
    header: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["reval", "reinforcement-learning"],
    }
    if "/" in base and not cards.is_place(base):
        header["base_model"] = base
    if results:
        header["model-index"] = [{"name": name, "results": [_indexed(row) for row in results]}]
    return "\n".join(
        [
            *cards.header(header),
            f"# {name}",
            "",
            f"`{cards.named(base)}` after {origin.rounds:,} generation round{'s' * (origin.rounds != 1)} of ReVal "
            f"{__version__}",
            f"(arXiv 2603.23355): {origin.updates:,} updates on {origin.responses:,} responses of its run to",
            f"{origin.problems:,} problems with checkable answers. Weights in float32, for",
            "`AutoModelForCausalLM.from_pretrained` and for vLLM.",
            "Prompts have to be made as in training (settings below).",
            "",
            "## Results",
            "",
            *_results(results),
            "",
            "## Data",
            "",
            *(f"- `{cards.named(path)}`" for path in _sources(origin.settings)),
            "",
            "## Settings",
            "",
            *cards.table(("Setting", "Value"), _settings(origin.settings)),
            "",
            "## Lineage",
            "",
            *cards.table(("What", "Which"), _lineage(origin)),
            "",
        ]
    )


def _results(results: Sequence[Mapping[str, Any]]) -> list[str]:
    if not results:
        return ["Not evaluated in the store that it comes from."]
    note = (
        "Intervals are 95 % over problems. The run's report tells which training problems stand in a benchmark, if any."
    )
    return [*cards.table(_RESULT, [_result(row) for row in results]), "", note]


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(f"`{key}`", f"`{_shown(settings[key])}`") for key in SHOWN if settings.get(key) is not None]


def _lineage(origin: Origin) -> list[tuple[str, str]]:
    return [
        ("Policy", f"`{origin.policy_id}`"),
        ("Run, and those that it was forked from", ", ".join(f"`{run}`" for run in origin.chain)),
        ("Digest of the weights in the store", f"`{origin.weights_checksum}`"),
        *((name, f"`{value}`") for name, value in origin.versions.items() if isinstance(value, str | int)),
    ]


_RESULT = ("Benchmark", "Metric", "Value", "Problems", "Samples a problem", "Verifier")


def _result(row: Mapping[str, Any]) -> tuple[str, ...]:
    value = "" if row["value"] is None else f"{row['value']:.3f}"
    if value and row["low"] is not None:
        value += f" [{row['low']:.3f}, {row['high']:.3f}]"
    return (
        f"`{cards.named(row['benchmark'])}`",
        row["metric"],
        value,
        f"{row['problem_count']:,}",
        str(row["samples_per_problem"]),
        f"`{row['verifier_id']}`",
    )


def _indexed(row: Mapping[str, Any]) -> dict[str, Any]:
    name = cards.named(row["benchmark"])
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": name, "type": name},
        "metrics": [{"type": row["metric"], "value": row["value"]}],
    }


def _sources(settings: Mapping[str, Any]) -> list[str]:
    return [str(value) for key, value in settings.items() if key.startswith("problems.") and key.endswith(".path")]


def _shown(value: Any) -> str:
    return str(value).replace("`", "'").replace("\n", " ")
