"""Sections of the configuration that say what a policy is measured by: benchmarks, their files, their samples."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from reval_core.section import Section, neutral


class ProblemFile(Section):
    """One file, glob, folder, hub data set or built-in set of problems."""

    path: str = Field(
        description="File, glob or folder of .jsonl, .json (.gz), .parquet, .csv; hf:NAME; builtin:arithmetic/train."
    )
    fields: dict[str, str] = Field(
        default_factory=dict, description="Our name (question, answer, id, messages) to the file's column, or to a.b."
    )
    filter: str | None = Field(None, description="SQL condition on the file's columns; rows that meet it are kept.")
    limit: int | None = Field(None, ge=1, description="Keep the first rows only, after the filter.")
    split: str = Field("train", description="Split of a hub data set.")


class EvaluationConfig(Section):
    """Benchmarks during and after training."""

    every: int | None = neutral(None, ge=1, description="Rounds between evaluations; None: only before and after.")
    before: bool = neutral(True, description="Evaluate the base policy.")
    after: bool = neutral(True, description="Evaluate the last policy.")
    benchmarks: tuple[str, ...] = neutral((), description="Names: registered ones, paths of problem files, of `files`.")
    files: dict[str, ProblemFile] = neutral(
        default_factory=dict, description="Benchmarks of your own: a name to path, fields, filter and limit."
    )
    samples_per_problem: int = neutral(16, ge=1, description="k of avg@k.")
    limit: int | None = neutral(None, ge=1, description="Problems of a benchmark at most, a fixed subset.")
    limits: dict[str, PositiveInt] = neutral(default_factory=dict, description="The same by benchmark, over `limit`.")
    temperature: float = neutral(1.0, gt=0, description="Sampling temperature.")
    top_p: float = neutral(1.0, gt=0, le=1, description="Nucleus sampling mass.")
    top_k: int = neutral(0, ge=0, description="Sample among the k likeliest tokens; 0 is off.")
    max_new_tokens: int | None = neutral(None, ge=1, description="Response tokens at most; None: as in rollouts.")
    seed: int = neutral(0, ge=0, description="Seed of the samples, the same for every policy: comparisons are paired.")
    device: str | None = neutral(
        None, description="A second device, as cuda:1, on which a process evaluates meanwhile; None: between rounds."
    )
    extraction: Literal["boxed", "lenient"] = neutral("boxed", description="Where an answer is looked for.")
    policies: dict[str, dict[str, Any]] = neutral(
        default_factory=dict, description="Options of GradingPolicy by benchmark, over reward.policy and its own."
    )
