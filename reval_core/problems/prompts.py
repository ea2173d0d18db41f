"""Renders problems as token ids, the way the model was trained to be asked."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from reval_core.config import PromptConfig
from reval_core.errors import PromptError
from reval_core.problems.problem import Problem

LACKING = 8
"""Characters that a vocabulary lacks which are told; the others are counted."""


@dataclass(frozen=True)
class Prompt:
    """A rendered problem."""

    problem_id: str
    text: str
    token_ids: tuple[int, ...]


class PromptRenderer:
    """Applies prefix, suffix, system message and template, and says which tokens end a response.

    Args:
        tokenizer: a Hugging Face tokenizer.
        config: the prompt part of the configuration.

    Raises:
        PromptError: the tokenizer has no chat template or EOS, or a stop string is not one token.
    """

    def __init__(self, tokenizer: Any, config: PromptConfig) -> None:
        self._tokenizer = tokenizer
        self._config = config
        self._template: str | None = None
        if config.template == "tokenizer":
            if not tokenizer.chat_template:
                raise PromptError(
                    "prompt.template is 'tokenizer', but this tokenizer has no chat template. "
                    "Use prompt.template: none, or give a Jinja file."
                )
        elif config.template != "none":
            self._template = config.template
        elif config.system is not None:
            raise PromptError("prompt.system needs a template that knows roles; with template: none use prompt.prefix.")
        elif config.template_args:
            raise PromptError("prompt.template_args are variables of a template; with template: none there is none.")
        self.stop_ids = self._stop_ids()

    def _stop_ids(self) -> tuple[int, ...]:
        eos = self._tokenizer.eos_token_id
        if eos is None:
            raise PromptError("The tokenizer has no EOS token, so no response could ever end.")
        stop = [int(eos)]
        for text in self._config.stop:
            ids = self._tokenizer.encode(text, add_special_tokens=False)
            if len(ids) != 1:
                raise PromptError(f"prompt.stop {text!r} is {len(ids)} tokens here; it has to be a single token.")
            stop.append(int(ids[0]))
        return tuple(dict.fromkeys(stop))

    def render(self, problem: Problem) -> Prompt:
        """Text and token ids of a problem; special tokens of the template are not doubled."""
        messages = self._messages(problem)
        if self._config.template == "none":
            if len(messages) != 1:
                raise PromptError(
                    f"Problem {problem.external_id} of {problem.source} is a conversation; prompt.template: none "
                    "takes single questions. Use the tokenizer's template or a Jinja file."
                )
            text = messages[0]["content"]
            ids = self._tokenizer.encode(text)
            if ids and ids[-1] == self._tokenizer.eos_token_id:
                ids = ids[:-1]  # some tokenizers close every text; a prompt is not closed
        else:
            text = self._apply(messages)
            ids = self._tokenizer.encode(text, add_special_tokens=False)
        if not ids:
            raise PromptError(f"Problem {problem.external_id} of {problem.source} renders to no token at all.")
        if letters(text) not in letters(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)):
            raise PromptError(
                f"Problem {problem.external_id} of {problem.source}: the model's tokenizer cannot write all of it"
                f"{self._lacking(text)}; the tokens read {self._tokenizer.decode(ids)!r}. Use a model whose vocabulary "
                "covers these problems: model.path of any usual language model, or builtin:bytes to try the stages."
            )
        return Prompt(problem.problem_id, text, tuple(int(token) for token in ids))

    def _lacking(self, text: str) -> str:
        """The characters of a text that the tokenizer loses, each by itself; empty where it loses them together."""
        lost = [c for c in dict.fromkeys(letters(text)) if c not in letters(self._decoded(c))]
        more = f" and {len(lost) - LACKING} more characters" if len(lost) > LACKING else ""
        return f": it lacks {' '.join(lost[:LACKING])}{more}" if lost else ""

    def _decoded(self, text: str) -> str:
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _messages(self, problem: Problem) -> list[dict[str, str]]:
        *earlier, last = (dict(message) for message in problem.messages)
        last["content"] = f"{self._config.prefix}{last['content']}{self._config.suffix}"
        system = [{"role": "system", "content": self._config.system}] if self._config.system is not None else []
        if system and earlier and earlier[0]["role"] == "system":
            raise PromptError(f"Problem {problem.external_id} of {problem.source} brings its own system message.")
        return [*system, *earlier, last]

    def _apply(self, messages: list[dict[str, str]]) -> str:
        arguments: Mapping[str, Any] = self._config.template_args
        try:
            return self._tokenizer.apply_chat_template(
                messages, chat_template=self._template, tokenize=False, add_generation_prompt=True, **arguments
            )
        except (TemplateError, TypeError) as error:  # the latter: a list plus a number, say
            raise PromptError(f"The prompt template failed: {error}") from error


def letters(text: str) -> str:
    """The text without white space and in composed form, which tokenizers may rewrite without losing anything."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def check_lengths(prompts: list[Prompt], problems: Mapping[str, Problem], *, max_prompt_tokens: int) -> None:
    """Refuse prompts that are too long, before anything is generated.

    Raises:
        PromptError: names the longest one and how many there are.
    """
    long = [prompt for prompt in prompts if len(prompt.token_ids) > max_prompt_tokens]
    if long:
        worst = max(long, key=lambda prompt: len(prompt.token_ids))
        problem = problems[worst.problem_id]
        raise PromptError(
            f"{len(long)} prompts are longer than rollouts.max_prompt_tokens = {max_prompt_tokens}; the longest has "
            f"{len(worst.token_ids)} tokens (id {problem.external_id} of {problem.source}). Raise the limit, or leave "
            "such problems out with a filter."
        )
