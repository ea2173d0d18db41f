"""A reward of one's own: real-valued, and not about mathematics. It pays for responses of a wanted length.

PYTHONPATH=examples reval train CONFIG --set reward.use=length_reward:near --set reward.transform=raw
"""

from collections.abc import Sequence


def near(problem, completions: Sequence[str], characters: int = 20) -> list[float]:
    """1 for a completion of exactly so many characters, less by its distance from them, at least -1."""
    return [max(-1.0, 1.0 - abs(len(text) - characters) / characters) for text in completions]


near.version = 1  # raised when the same completion would get another number
