"""A reward of one's own: real-valued, and not about mathematics. It pays for words of the question, and brevity.

PYTHONPATH=examples reval train CONFIG --set reward.use=keyword_reward:keywords --set reward.transform=raw
"""

from collections.abc import Sequence


def keywords(problem, completions: Sequence[str], per_character: float = 0.001) -> list[float]:
    """Share of the question's words that a completion uses, minus a little for each character."""
    words = {word.strip(".,?!").lower() for word in problem.question.split()}
    return [
        sum(word in text.lower() for word in words) / len(words) - per_character * len(text) for text in completions
    ]


keywords.version = 1  # raised when the same completion would get another number
