"""Problems: what a model is asked, where it is read from, how it is rendered, in which order it comes."""

from reval_core.problems.loading import load_problems
from reval_core.problems.problem import Problem, ask
from reval_core.problems.prompts import Prompt, PromptRenderer

__all__ = ["Problem", "Prompt", "PromptRenderer", "ask", "load_problems"]
