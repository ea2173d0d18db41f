from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerBase

from reval_core.config import PromptConfig
from reval_core.errors import ConfigError, PromptError
from reval_core.policies.tiny import EOS, arithmetic_tokenizer, byte_tokenizer
from reval_core.problems import Problem, PromptRenderer, ask
from reval_core.problems.prompts import check_lengths

BOS = "<|begin|>"
CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% if thinking %}<think>{% endif %}{% endif %}"
)
CONVERSATION = (
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "2+2?"},
)


@pytest.fixture
def chatty() -> PreTrainedTokenizerBase:
    """Bytes, with a token that begins every text and one that ends it, and a chat template that writes the first."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": BOS})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}",
        special_tokens=[(BOS, tokenizer.bos_token_id), (EOS, tokenizer.eos_token_id)],
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def rendered(tokenizer: Any, problem: Problem | str, **settings: Any) -> str:
    """The prompt's text, after a look at its tokens."""
    problem = Problem(ask(problem), "") if isinstance(problem, str) else problem
    prompt = PromptRenderer(tokenizer, PromptConfig(**settings)).render(problem)
    assert prompt.problem_id == problem.problem_id
    assert all(type(token) is int for token in prompt.token_ids)
    return tokenizer.decode(list(prompt.token_ids))


# -- templates --------------------------------------------------------------------------------------------------------


def test_without_a_template_the_model_sees_the_question() -> None:
    tokenizer = arithmetic_tokenizer()
    prompt = PromptRenderer(tokenizer, PromptConfig(template="none")).render(Problem(ask("3+4-5=?"), "2"))
    assert prompt.text == "3+4-5=?"
    assert prompt.token_ids == tuple(tokenizer.encode("3+4-5=?"))
    assert len(prompt.token_ids) == 7


def test_prefix_and_suffix_stand_around_the_question() -> None:
    assert rendered(byte_tokenizer(), "1+1?", template="none", prefix="Q: ", suffix="\nA:") == "Q: 1+1?\nA:"


def test_the_tokenizers_template_is_applied(chatty: PreTrainedTokenizerBase) -> None:
    assert rendered(chatty, "1+1?") == f"{BOS}[user]1+1?\n[assistant]"
    assert rendered(chatty, "1+1?", system="be brief", prefix="<", suffix=">") == (
        f"{BOS}[system]be brief\n[user]<1+1?>\n[assistant]"
    )
    assert rendered(chatty, "1+1?", template_args={"thinking": True}) == f"{BOS}[user]1+1?\n[assistant]<think>"


def test_a_template_may_be_a_file(
    chatty: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain.jinja").write_text("{% for m in messages %}{{ m['content'] }}|{% endfor %}")
    monkeypatch.setenv("TEMPLATES", str(tmp_path))
    assert rendered(chatty, "1+1?", template="${TEMPLATES}/plain.jinja") == "1+1?|"
    plain = byte_tokenizer()  # has no template of its own
    assert rendered(plain, Problem(CONVERSATION, ""), template=str(tmp_path / "plain.jinja")) == "1+1?|2|2+2?|"


def test_the_beginning_is_not_doubled(chatty: PreTrainedTokenizerBase) -> None:
    templated = PromptRenderer(chatty, PromptConfig()).render(Problem(ask("1?"), ""))
    assert templated.token_ids.count(chatty.bos_token_id) == 1
    # without a template the tokenizer puts it there; the end that it puts behind every text is taken off
    bare = PromptRenderer(chatty, PromptConfig(template="none")).render(Problem(ask("1?"), ""))
    assert bare.token_ids[0] == chatty.bos_token_id
    assert chatty.eos_token_id not in bare.token_ids
    assert len(bare.token_ids) == 3


def test_a_conversation_keeps_its_turns_and_the_last_one_is_the_question(chatty: PreTrainedTokenizerBase) -> None:
    text = rendered(chatty, Problem(CONVERSATION, ""), prefix="Q: ", system="s")
    assert text == f"{BOS}[system]s\n[user]1+1?\n[assistant]2\n[user]Q: 2+2?\n[assistant]"


def test_rendering_leaves_the_problem_as_it_is(chatty: PreTrainedTokenizerBase) -> None:
    problem = Problem(ask("1?"), "")
    name = problem.problem_id
    rendered(chatty, problem, prefix="Q: ")
    assert problem.problem_id == name


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_a_conversation_needs_a_template(chatty: PreTrainedTokenizerBase) -> None:
    with pytest.raises(PromptError, match=r"Problem 7 of chats\.jsonl is a conversation"):
        rendered(chatty, Problem(CONVERSATION, "", source="chats.jsonl", external_id="7"), template="none")


def test_a_system_message_needs_a_template(chatty: PreTrainedTokenizerBase) -> None:
    with pytest.raises(PromptError, match=r"prompt\.system needs a template"):
        PromptRenderer(chatty, PromptConfig(template="none", system="be brief"))


def test_variables_of_a_template_need_one_and_leave_ours_alone(chatty: PreTrainedTokenizerBase) -> None:
    with pytest.raises(PromptError, match=r"prompt\.template_args are variables of a template"):
        PromptRenderer(chatty, PromptConfig(template="none", template_args={"thinking": True}))
    for name in ("tokenize", "messages", "add_generation_prompt"):
        with pytest.raises(ValueError, match=f"'{name}' is no variable of yours"):
            PromptConfig(template_args={name: True})


def test_two_system_messages_are_refused(chatty: PreTrainedTokenizerBase) -> None:
    own = Problem(({"role": "system", "content": "mine"}, *ask("1?")), "", source="p.jsonl", external_id="3")
    assert "[system]mine" in rendered(chatty, own)
    with pytest.raises(PromptError, match=r"Problem 3 of p\.jsonl brings its own system message"):
        rendered(chatty, own, system="yours")


def test_a_tokenizer_without_a_chat_template_is_refused() -> None:
    with pytest.raises(PromptError, match=r"no chat template\. Use prompt\.template: none"):
        PromptRenderer(byte_tokenizer(), PromptConfig())


def test_a_missing_template_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="there is no file Tokenizer"):
        PromptConfig(template="Tokenizer")
    monkeypatch.delenv("REVAL_NOWHERE", raising=False)
    with pytest.raises(ConfigError, match="REVAL_NOWHERE"):
        PromptConfig(template="${REVAL_NOWHERE}/a.jinja")


def test_a_template_file_is_read_once_and_its_text_is_the_runs(chatty: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    path = tmp_path / "turn.jinja"
    path.write_text("{% for m in messages %}{{ m['content'] }}!{% endfor %}")
    first = PromptConfig(template=str(path))
    path.write_text("{% for m in messages %}{{ m['content'] }}?{% endfor %}")
    assert PromptConfig(template=str(path)) != first
    path.unlink()
    again = PromptConfig.model_validate(first.model_dump(mode="json"))  # as a run that is gone on with reads it
    assert PromptRenderer(chatty, again).render(Problem(ask("1+1"), "")).text == "1+1!"


def test_a_file_without_jinja_is_no_template(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("be brief")
    with pytest.raises(ValueError, match="is no Jinja template"):
        PromptConfig(template=str(tmp_path / "notes.txt"))


@pytest.mark.parametrize(
    "template",
    [
        "{% for %}",
        "{{ raise_exception('no such role') }}",
        "{{ messages[9].content.x }}",
        "{{ ''.__class__.mro() }}",
        "{{ messages + 1 }}",
    ],
)
def test_a_template_that_fails_is_refused(chatty: PreTrainedTokenizerBase, template: str) -> None:
    chatty.chat_template = template
    with pytest.raises(PromptError, match="The prompt template failed"):
        rendered(chatty, "1?")


def test_a_prompt_has_at_least_one_token(chatty: PreTrainedTokenizerBase) -> None:
    chatty.chat_template = "{% if false %}x{% endif %}"
    nothing = Problem(ask("1?"), "", source="p.jsonl", external_id="3")
    with pytest.raises(PromptError, match=r"Problem 3 of p\.jsonl renders to no token"):
        rendered(chatty, nothing)
    # a question that is nothing but the end of a text leaves no token either
    plain = byte_tokenizer()
    with pytest.raises(PromptError, match="renders to no token"):
        rendered(plain, EOS, template="none")


# -- what ends a response ---------------------------------------------------------------------------------------------


def test_a_response_ends_with_eos_or_a_stop_token() -> None:
    tokenizer = arithmetic_tokenizer()
    eos, box, close = tokenizer.convert_tokens_to_ids([EOS, "\\boxed{", "}"])
    assert PromptRenderer(tokenizer, PromptConfig(template="none")).stop_ids == (eos,)
    config = PromptConfig(template="none", stop=("}", "\\boxed{", "}", EOS))
    assert PromptRenderer(tokenizer, config).stop_ids == (eos, close, box)


@pytest.mark.parametrize(("text", "count"), [("12", 2), ("", 0)])
def test_a_stop_string_is_one_token(text: str, count: int) -> None:
    with pytest.raises(PromptError, match=f"prompt.stop '{text}' is {count} tokens here"):
        PromptRenderer(arithmetic_tokenizer(), PromptConfig(template="none", stop=(text,)))


def test_a_stop_string_is_counted_without_the_texts_own_beginning_and_end(chatty: PreTrainedTokenizerBase) -> None:
    assert len(PromptRenderer(chatty, PromptConfig(stop=("x",))).stop_ids) == 2


def test_a_tokenizer_without_an_end_is_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(PromptError, match="no EOS token"):
        PromptRenderer(tokenizer, PromptConfig(template="none"))


# -- lengths ----------------------------------------------------------------------------------------------------------


def test_a_prompt_that_is_too_long_is_named() -> None:
    renderer = PromptRenderer(byte_tokenizer(), PromptConfig(template="none"))
    problems = [
        Problem(ask("x" * length), "", source="p.jsonl", external_id=str(number))
        for number, length in enumerate((3, 10, 12, 11))
    ]
    prompts = [renderer.render(problem) for problem in problems]
    by_id = {problem.problem_id: problem for problem in problems}
    check_lengths(prompts, by_id, max_prompt_tokens=12)
    with pytest.raises(
        PromptError, match=r"2 prompts are longer .* = 10; the longest has 12 tokens \(id 2 of p\.jsonl"
    ):
        check_lengths(prompts, by_id, max_prompt_tokens=10)


def test_text_that_the_vocabulary_cannot_write_is_refused() -> None:
    renderer = PromptRenderer(arithmetic_tokenizer(), PromptConfig(template="none"))
    assert renderer.render(Problem(ask("3+4-5=?"), gold="2")).text == "3+4-5=?"
    with pytest.raises(
        PromptError, match=r"12 of mine: .* cannot write all of it: it lacks W h a t i s; the tokens read"
    ):
        renderer.render(Problem(ask("What is 3+4?"), gold="7", external_id="12", source="mine"))
    with pytest.raises(PromptError, match="it lacks C o m p u t e r and 4 more characters; the tokens read"):
        renderer.render(Problem(ask("Computer science 3+4"), gold="7"))
