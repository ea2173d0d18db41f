r"""The built-in tiny models: Qwen2 of about 100,000 parameters, in plain Hugging Face layout.

`build_tiny_model` makes the base policy of the arithmetic problems in under a minute on two CPU
cores. A model that cannot add does not learn to by RL in a hundred rounds; what RL changes is how
often a skill is used. So the warm start has two phases: the model first learns to work problems out
step by step, then it is trained on a mixture that mostly guesses. What is left is a model with the
skill intact that uses it one time in three, which is what RL can mend.

`build_byte_model` makes a random model that reads any UTF-8 text, for smoke runs on real data.
"""

import math
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from reval_core.problems.arithmetic import arithmetic_problems, demonstration, right_answer

EOS = "<|endoftext|>"
PAD = "<|pad|>"
BOX = r"\boxed{"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class WarmStart:
    """The recipe of the tiny model's two training phases."""

    skill_steps: int = 1250
    """Updates of the first phase, on right step by step demonstrations."""
    mode_steps: int = 250
    """Updates of the second phase, on the mixture that mostly guesses."""
    batch_size: int = 64
    """Texts in one update."""
    skill_learning_rate: float = 5e-3
    """Peak learning rate of the first phase, after `warmup_steps` brought to zero by a cosine."""
    mode_learning_rate: float = 5e-4
    """Peak learning rate of the second phase; a higher one forgets more of the skill."""
    warmup_steps: int = 30
    """Updates over which each phase's learning rate rises from zero."""
    adam_betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's betas; a second beta of 0.98 learns the skill in fewer updates than 0.999."""
    reasoning_share: float = 0.33
    """Share of the second phase's texts that show their steps; the others box a wrong answer."""
    slip_share: float = 0.10
    """Share of those reasoning texts in which one step is off by one."""
    mode_texts: int = 8
    """Texts drawn for each training problem to make up the second phase's pool."""


def build_tiny_model(
    folder: Path,
    *,
    seed: int,
    progress: Progress | None = None,
    recipe: WarmStart | None = None,
) -> None:
    """Train the base policy of the arithmetic problems and write it to `folder`.

    It sees the "train" split alone. The same seed, recipe and library versions give the same weights: it is trained by
    one thread, whatever the process has. `progress` is called after each update with the updates done and their total.
    Raises FileExistsError when `folder` exists, before or after the work; a failure leaves no folder behind.
    """
    with _written_aside(folder) as aside, torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(seed)
        tokenizer = arithmetic_tokenizer()
        model = Qwen2ForCausalLM(_config(tokenizer, intermediate_size=192))
        _warm_start(model, tokenizer, recipe or WarmStart(), random.Random(seed), progress or _no_progress)
        _save(model, tokenizer, aside)


def build_byte_model(folder: Path, *, seed: int) -> None:
    """Write a byte-level model with random weights to `folder`; it takes up to 4096 bytes.

    Raises FileExistsError when `folder` exists, before or after the work; a failure leaves no folder behind.
    """
    with _written_aside(folder) as aside, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = byte_tokenizer()
        model = Qwen2ForCausalLM(_config(tokenizer, intermediate_size=128))
        _save(model, tokenizer, aside)


def arithmetic_tokenizer() -> Qwen2Tokenizer:
    r"""One token for each character of the problems, and one for `\boxed{`: 19 with EOS and PAD.

    The longest completion has 22 tokens with its EOS; were `\boxed{` in characters, 28.
    Any other character is left out without an error, for Qwen2's tokenizer has no unknown token:
    where texts may have others, compare the decoded text with the original.
    """
    tokenizer = _qwen2_tokenizer([*"0123456789+-=?;", BOX, "}"], max_length=128)
    # Qwen2 splits `\boxed` from `{` before any merge, so merges cannot make one token of the two
    tokenizer.add_tokens([AddedToken(BOX, normalized=False)])
    return tokenizer


def byte_tokenizer() -> Qwen2Tokenizer:
    """One token for each byte of the text's canonical composition (NFC), Qwen2's normal form.

    A UTF-8 text in NFC, as almost any is, comes out as it went in; others come out composed.
    """
    return _qwen2_tokenizer(sorted(pre_tokenizers.ByteLevel.alphabet()), max_length=4096)


def _qwen2_tokenizer(tokens: list[str], *, max_length: int) -> Qwen2Tokenizer:
    """A byte-level BPE of `tokens` and no merges, with ids in their order after PAD and EOS.

    Beside a Qwen2 model AutoTokenizer takes this class, whatever tokenizer_config.json names, and
    keeps vocabulary, merges and added tokens of tokenizer.json but puts its own pre-tokenizer,
    normal form and unknown token, which is EOS, in the place of others. A tokenizer of the class
    itself loads as it was saved.
    """
    return Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate([PAD, EOS, *tokens])},
        merges=[],
        unk_token=EOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def _config(tokenizer: Qwen2Tokenizer, *, intermediate_size: int) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=intermediate_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _warm_start(
    model: Qwen2ForCausalLM,
    tokenizer: Qwen2Tokenizer,
    recipe: WarmStart,
    rng: random.Random,
    progress: Progress,
) -> None:
    """Train both phases in place; the model is left in evaluation mode."""
    questions = [problem["question"] for problem in arithmetic_problems("train")]
    skill = [q + demonstration(q) for q in questions]
    mode = [q + _mode_text(q, recipe, rng) for q in questions for _ in range(recipe.mode_texts)]
    phases = [
        (_token_table(tokenizer, skill), recipe.skill_steps, recipe.skill_learning_rate),
        (_token_table(tokenizer, mode), recipe.mode_steps, recipe.mode_learning_rate),
    ]
    model.train()
    done = 0
    for table, steps, learning_rate in phases:
        for _ in _train(model, table, steps, learning_rate, recipe):
            done += 1
            progress(done, recipe.skill_steps + recipe.mode_steps)
    model.eval()


def _mode_text(question: str, recipe: WarmStart, rng: random.Random) -> str:
    """A completion of the second phase: right steps, steps with a slip, or a wrong guess."""
    if rng.random() >= recipe.reasoning_share:
        right = right_answer(question)
        guess = rng.choice([n for n in range(-18, 28) if n != right])
        return f"{BOX}{guess}}}"
    if rng.random() >= recipe.slip_share:
        return demonstration(question)
    slip = rng.choice((-1, 1))
    in_first = rng.random() < 0.5
    return demonstration(question, slip1=slip if in_first else 0, slip2=0 if in_first else slip)


def _token_table(tokenizer: Qwen2Tokenizer, texts: list[str]) -> torch.Tensor:
    """Each text and its EOS as one row of token ids [N, L], padded on the right."""
    rows = tokenizer([text + EOS for text in texts])["input_ids"]
    table = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id)
    for i, row in enumerate(rows):
        table[i, : len(row)] = torch.tensor(row)
    return table


def _train(
    model: Qwen2ForCausalLM,
    table: torch.Tensor,
    steps: int,
    learning_rate: float,
    recipe: WarmStart,
) -> Iterator[None]:
    """Supervised updates on rows drawn from `table` [N, L], one at each step of the iterator.

    Every question has seven tokens, so the completion starts at the same column in each row; the
    loss is over completions alone. Padding on the right of a causal model needs no attention mask.
    """
    start = len("0+0+0=?")
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=recipe.adam_betas, weight_decay=0.0)
    for step in range(steps):
        rows = table[torch.randint(len(table), (recipe.batch_size,))]  # [B, L]
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits  # [B, L - 1, vocabulary]
        loss = cross_entropy(
            logits[:, start - 1 :].flatten(0, 1),
            rows[:, start:].flatten(),
            ignore_index=model.config.pad_token_id,
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _rise_and_fall(step, steps, recipe.warmup_steps)
        optimizer.step()
        yield


def _rise_and_fall(step: int, steps: int, warmup: int) -> float:
    """The learning rate's factor at `step`: linear from zero to one, then a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _no_progress(done: int, total: int) -> None:
    """Report to nobody."""


def _save(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, folder: Path) -> None:
    """Write weights (safetensors), configuration and tokenizer.

    The generation settings sample the model's own distribution: temperature 1, nothing cut off.
    """
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums come out in one order; the model is too small for a second thread to help."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _written_aside(folder: Path) -> Iterator[Path]:
    """A new folder that takes the name `folder` when the block ends well, else vanishes.

    Raises:
        FileExistsError: the name is taken, before the block or, by another process, at its end.
    """
    taken = FileExistsError(f"{folder} exists; remove it or choose another folder for the model")
    if folder.exists():
        raise taken
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}."
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent) as beside:
        aside = Path(beside) / folder.name
        aside.mkdir()
        yield aside
        try:
            os.replace(aside, folder)
        except OSError as error:
            if folder.exists():
                raise taken from error
            raise
