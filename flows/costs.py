"""What a training run will need: rows and bytes in the store, saved policies, device memory, each with its formula.

Bytes per row, indexes included, are the growth of each table up to six times the rows of a finished quickstart (32 MB);
the saved tensors of a micro-batch were measured by hooks on Qwen2 models of five sizes, packed and with torch's kernels
(within 1 %), the logits by peak memory; all on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from flows.base_model import ModelSize
from reval_core.config import Config
from reval_core.learning.head import LOGITS_PER_CHUNK
from reval_core.learning.objectives import objective_for
from tasks.inputs import Inputs

FIXED = 14_000_000
"""A store in which every table has a row: 26 tables and 24 indexes, each with a block of 256 KiB or more."""
RESPONSE = 475
"""One response, whatever it is for: its row, its payload beside the tokens, its verdict."""
REFERENCE_SCORES = 440
REPLAY_ENTRY = 50
UPDATE_MEMBER = 56
"""One trajectory in one update."""
PROBLEM = 800
"""A problem, where it was read, and its gold answer, beside their texts."""
SCHEDULED = 42
"""A problem's place in one epoch."""
PROMPT = 150
"""A rendered prompt, beside its text and token ids."""
PAYLOAD_TOKEN = 6
"""Id and text of one response token, compressed: 6.4 bytes in mathematical English, 3.6 in the quickstart."""

MASTER = 8
"""float32 weight and gradient of one parameter that is learned."""
MOMENTS = {"adamw": 8, "adamw_8bit": 2, "adamw_paged": 8}
"""Two Adam moments of one parameter; those in 8 bits have one float32 for 256 of them beside."""
PAGED = "adamw_paged"
"""Its moments are paged out while anything else needs the device's memory."""
COMPUTE_BYTES = {"float32": 4, "bfloat16": 2}
NARROW_BYTES = {"float32": 36, "bfloat16": 22}
"""Saved by one token in one layer for each of its hidden dimensions: norms, which are float32 inside, and attention."""
LOGITS_COPIES = 4
"""Tensors of the size of the logits that live at once in their backward pass."""


@dataclass(frozen=True)
class Rows:
    """How much of everything a run writes."""

    responses: int
    """Sampled for training."""
    evaluated: int
    """Sampled by evaluations."""
    problems: int
    prompts: int
    scheduled: int
    text_bytes: int
    """Of the problems."""


def evaluated_rounds(config: Config) -> list[int]:
    """Iterations after which a run evaluates, -1 for the base policy."""
    total, every = config.run.iterations, config.evaluation.every
    rounds = [-1] if config.evaluation.before else []
    rounds += range(every - 1, total - 1, every) if every else []
    return rounds + ([total - 1] if config.evaluation.after else [])


def saved_rounds(config: Config) -> tuple[set[int], set[int]]:
    """Iterations whose policy is saved with its optimizer's state, and those saved only since they are evaluated."""
    total, resets = config.run.iterations, config.objective.reference_reset_every
    saved = {*range(config.checkpoint.every - 1, total, config.checkpoint.every), total - 1}
    saved |= set(range(resets - 1, total - 1, resets)) if resets else set()
    evaluated = set(evaluated_rounds(config)) if config.evaluation.benchmarks else set()
    return {r for r in saved if r >= 0}, {r for r in evaluated - saved if r >= 0}


def rows(config: Config, inputs: Inputs) -> Rows:
    """Rows of a run from beginning to end; nothing is taken off for what is stored already."""
    problems, asked = inputs.problems, sum(len(found) for found in inputs.benchmarks.values())
    rounds, drawn = config.run.iterations, config.run.iterations * config.rollouts.prompts_per_iteration
    epochs = -(-drawn // len(problems)) if problems else 0
    return Rows(
        responses=rounds * config.batch_size,
        evaluated=len(evaluated_rounds(config)) * asked * config.evaluation.samples_per_problem,
        problems=len(problems) + asked,
        prompts=min(drawn, len(problems)) + asked,
        scheduled=epochs * len(problems),
        text_bytes=sum(len(problem.question) for problem in inputs.all),
    )


def store_bytes(config: Config, counted: Rows) -> int:
    """Size of the database file when every response is as long as it may be."""
    reference = objective_for(config.objective).needs_reference
    updates = config.objective.updates.on_policy + config.objective.updates.off_policy
    learned_from = REPLAY_ENTRY + (REFERENCE_SCORES if reference else 0) + updates * UPDATE_MEMBER
    longest = config.evaluation.max_new_tokens or config.rollouts.max_new_tokens
    tokens = counted.responses * config.rollouts.max_new_tokens + counted.evaluated * longest
    return (
        FIXED
        + (counted.responses + counted.evaluated) * RESPONSE
        + counted.responses * learned_from
        + tokens * PAYLOAD_TOKEN
        + counted.problems * PROBLEM
        + counted.prompts * PROMPT
        + counted.scheduled * SCHEDULED
        + 3 * counted.text_bytes  # the question, once more within its messages, and as a prompt
    )


@dataclass(frozen=True)
class Need:
    """One part of the device memory."""

    name: str
    size: int
    """Bytes."""
    formula: str


def learned_parameters(config: Config, size: ModelSize) -> int:
    """All of the model, or its adapters: rank times inputs and outputs of each layer that has one."""
    lora = config.model.lora
    if lora is None:
        return size.parameters
    sides = {
        **dict.fromkeys(("k_proj", "v_proj"), size.hidden + size.kv_width),
        **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), size.hidden + size.intermediate),
    }
    return size.layers * lora.rank * sum(sides.get(target, 2 * size.hidden) for target in lora.targets)


def checkpoint_bytes(config: Config) -> int:
    """float32 weight and two moments of one parameter in a saved folder."""
    return 4 + MOMENTS[config.optimizer.use]


def learning_memory(config: Config, size: ModelSize) -> list[Need]:
    """What an update holds at once, with several ranks on the device of the first, where the reference is, too."""
    tokens, positions = micro_batch(config)
    learner = _learner(config, size, MASTER, "float32 weight, gradient")
    needs = [*_base(config, size), learner, *_reference(config, size)]
    if config.learning.ranks > 1:
        needs.append(_gathered(config, size))
    elif config.model.dtype == "bfloat16":
        copies = 2 * learned_parameters(config, size)
        needs.append(Need("bfloat16 copies", copies, f"2 bytes a {unit(config)}, while it computes"))
    return [*needs, _activations(config, size, tokens), _logits(size, positions)]


def unit(config: Config) -> str:
    """What is counted in `learned_parameters`."""
    return "parameter" if config.model.lora is None else "parameter of the adapters"


def _learner(config: Config, size: ModelSize, own: int, words: str) -> Need:
    use = config.optimizer.use
    each = own + (0 if use == PAGED else MOMENTS[use])
    moments = {"adamw": ", two moments", "adamw_8bit": ", two moments in 8 bits", PAGED: "; moments on the host"}[use]
    formula = f"{each} bytes a {unit(config)}: {words}{moments}"
    if (ranks := config.learning.ranks) > 1:
        formula += f"; over {ranks} ranks"
    return Need("learner", each * learned_parameters(config, size) // ranks, formula)


def _gathered(config: Config, size: ModelSize) -> Need:
    """What a rank has whole: embeddings and head for the length of a pass, and two layers, one of them on its way."""
    layer = size.hidden * (2 * size.hidden + 2 * size.kv_width + 3 * size.intermediate)
    whole = max(0, size.parameters - size.layers * layer) + 2 * layer
    each = 2 * COMPUTE_BYTES[config.model.dtype]
    return Need("gathered", each * whole, f"{each} bytes: weights and gradients of two layers, embeddings and head")


def _base(config: Config, size: ModelSize) -> list[Need]:
    """The frozen weights under adapters."""
    if config.model.lora is None:
        return []
    each = COMPUTE_BYTES[config.model.dtype]
    return [Need("base", each * size.parameters, f"{each} bytes a parameter: as it computes")]


def _reference(config: Config, size: ModelSize) -> list[Need]:
    if not objective_for(config.objective).needs_reference:
        return []
    if config.model.lora is not None:
        if config.objective.reference_reset_every is None:
            return []
        return [Need("reference", 4 * learned_parameters(config, size), f"4 bytes a {unit(config)}: a snapshot")]
    if config.model.reference == "host":
        return []
    if config.model.dtype == "bfloat16":
        return [Need("reference", 2 * size.parameters, "2 bytes a parameter: rounded weight, on a GPU")]
    return [Need("reference", 4 * size.parameters, "4 bytes a parameter: float32 weight")]


def micro_batch(config: Config) -> tuple[int, int]:
    """Tokens of the largest micro-batch, padding included, and how many of them are a response's."""
    rollouts = config.rollouts
    longest = rollouts.max_prompt_tokens + rollouts.max_new_tokens
    sequences = max(1, min(config.batch_size, config.optimizer.max_tokens_per_micro_batch // longest))
    return sequences * longest, sequences * rollouts.max_new_tokens


def layer_bytes(size: ModelSize, dtype: str, recomputed: bool | str = False) -> int:
    """Saved tensors of one token in one layer; attention is a fused kernel, which keeps no [T, T] matrix."""
    if recomputed is True:
        return COMPUTE_BYTES[dtype] * size.hidden
    wide = {False: 4, "gates": 2, "mlp": 0}[recomputed]
    return NARROW_BYTES[dtype] * size.hidden + COMPUTE_BYTES[dtype] * (2 * size.kv_width + wide * size.intermediate)


def _activations(config: Config, size: ModelSize, tokens: int) -> Need:
    dtype, recomputed = config.model.dtype, config.model.gradient_checkpointing
    each = size.layers * layer_bytes(size, dtype, recomputed)
    if recomputed:  # one layer at a time is whole again
        each += layer_bytes(size, dtype) - layer_bytes(size, dtype, recomputed)
    formula = f"{tokens:,} tokens x {each:,} bytes, of {size.layers} layers, with gradient_checkpointing {recomputed}"
    return Need("activations", tokens * each, formula)


def _logits(size: ModelSize, positions: int) -> Need:
    at_once = min(positions * size.vocabulary, LOGITS_PER_CHUNK)
    formula = f"{at_once:,} logits at a time x 4 bytes x {LOGITS_COPIES} in the backward pass"
    return Need("logits", LOGITS_COPIES * 4 * at_once, formula)


def generating_memory(config: Config, size: ModelSize) -> list[Need]:
    """What sampling holds at once, another engine's own aside: the learner keeps its moments, its gradient is gone."""
    whole = [Need("policy", 4 * size.parameters, "4 bytes a parameter: float32 weight, whole")]
    return [
        *_base(config, size),
        _learner(config, size, 4, "float32 weight"),
        *(whole if config.learning.ranks > 1 else []),
        *_reference(config, size),
        *_cache(config, size),
    ]


def _cache(config: Config, size: ModelSize) -> list[Need]:
    """Keys and values of one decoded batch, where the learner's own model samples."""
    rollouts, engine = config.rollouts, config.rollouts.engine
    if engine.use != "transformers":
        return []
    longest = rollouts.max_prompt_tokens + rollouts.max_new_tokens
    sequences = max(1, min(config.batch_size, engine.max_batch_sequences, engine.max_batch_tokens // longest))
    # under autocast keys are as wide as the residual stream, which the weights' own precision decides
    width = 4 if config.model.lora is None else COMPUTE_BYTES[config.model.dtype]
    cache = 2 * width * size.layers * size.kv_width * sequences * longest
    return [Need("KV cache", cache, f"{sequences} sequences x {longest:,} tokens x layers x 2 kv x {width} bytes")]


def beside(config: Config) -> str:
    """What is not counted of sampling, in words: an engine with weights of its own has memory of its own."""
    engine = config.rollouts.engine
    if engine.use == "vllm":
        return f", beside vLLM's {engine.vllm.memory:g} of the GPU (rollouts.engine.vllm.memory)"
    return "" if engine.use == "transformers" else f", beside what the engine {engine.use!r} takes"
