"""Turns questions and completions of other systems into the tokens that a policy would have read and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reval_core.config import PromptConfig
from reval_core.errors import PromptError
from reval_core.problems import Problem, Prompt, PromptRenderer
from reval_core.problems.prompts import letters


class Unwritable(Exception):
    """A row without tokens: in which way (``reason``), and what exactly."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Response:
    """A completion in tokens."""

    token_ids: list[int]
    """EOS included unless it was cut."""
    text: str
    """Without the token that ended it."""
    finish_reason: str


class Tokeniser:
    """Renders prompts and writes completions in one tokenizer's tokens.

    Args:
        tokenizer: a Hugging Face tokenizer.
        tokenizer_id: digest of its files.
        prompt: how a problem becomes a prompt; None: the tokenizer's chat template where it has one, else the question.

    Raises:
        PromptError: the tokenizer has no EOS, or the settings do not fit it.
    """

    def __init__(self, tokenizer: Any, tokenizer_id: str, prompt: PromptConfig | None = None) -> None:
        self.tokenizer_id = tokenizer_id
        self.prompt = prompt or PromptConfig(template="tokenizer" if tokenizer.chat_template else "none")
        self._tokenizer = tokenizer
        self._renderer = PromptRenderer(tokenizer, self.prompt)

    def render(self, problem: Problem) -> Prompt:
        """The problem's prompt.

        Raises:
            Unwritable: the tokenizer or the template cannot write it.
        """
        try:
            return self._renderer.render(problem)
        except PromptError as error:
            raise Unwritable("whose prompt cannot be rendered", str(error)) from error

    def write(self, completion: str, *, truncated: bool) -> Response:
        """The completion's tokens, EOS at the end unless it was cut; a text that ends with EOS as text ended itself.

        Raises:
            Unwritable: it has no token at all, ends in the middle, or has characters that the tokenizer lacks.
        """
        text = completion.removesuffix(self._tokenizer.eos_token)
        cut = truncated and text == completion
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Unwritable("that no tokenizer can write", f"half of a surrogate pair at {error.start}") from error
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        if self._tokenizer.eos_token_id in ids:
            raise Unwritable("that go on after their end", f"{self._tokenizer.eos_token} stands in the middle")
        written = self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        if letters(text) not in letters(written):
            raise Unwritable("that the tokenizer cannot write", f"its tokens read {written[:60]!r}")
        if cut and not ids:
            raise Unwritable("without a token", "an empty completion that was cut")
        return Response(ids if cut else [*ids, self._tokenizer.eos_token_id], text, "length" if cut else "stop")
