"""Which trajectories a page lists, as its address says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reval_core.errors import ConfigError

Sort = Literal["newest", "oldest", "longest", "shortest", "best", "worst", "most_used"]
Status = Literal["correct", "incorrect", "no_answer", "timeout", "error", "rejected", "ungraded"]
Purpose = Literal["training", "evaluation", "imported"]
SORTS, STATUSES, PURPOSES = get_args(Sort), get_args(Status), get_args(Purpose)
Count = Field(default=None, ge=0, le=2**31 - 1)


class Filters(BaseModel):
    """The fields of the form; None: all. A name that is not among them is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str | None = Field(default=None, max_length=200)
    """Run id: the rounds along its chain with the verdicts that it used, and its evaluations."""
    first: int | None = Count
    """First round."""
    last: int | None = Count
    """Last round."""
    problem: str | None = Field(default=None, max_length=1000)
    """Part of the question, or the beginning of a problem id."""
    status: Status | None = None
    least: int | None = Count
    """Tokens of the response at least."""
    most: int | None = Count
    """Tokens of the response at most."""
    purpose: Purpose | None = None
    policy: str | None = Field(default=None, max_length=200)
    """Id of the policy that sampled, or its beginning."""
    sort: Sort = "newest"
    key: float | None = Field(default=None, allow_inf_nan=False)
    """Place of the last row of the page before, by the order that is sorted by."""
    after: str | None = Field(default=None, max_length=200)
    """Its trajectory id."""

    @property
    def whole(self) -> Filters:
        """The same from its first page on."""
        return self.model_copy(update={"key": None, "after": None})

    def behind(self, key: float, trajectory_id: str) -> Filters:
        """The same from behind a row."""
        return self.model_copy(update={"key": key, "after": trajectory_id})

    def address(self, path: str = "/trajectories") -> str:
        """The address of the page."""
        said = self.model_dump(exclude_defaults=True)
        return f"{path}?{urlencode(said)}" if said else path


def filters_of(asked: Mapping[str, str]) -> Filters:
    """The filters out of an address; a field that was left empty counts as not given.

    Raises:
        ConfigError: a field is unknown, or has a value that it cannot have.
    """
    given = {name: value.strip() for name, value in asked.items() if value.strip()}
    try:
        return Filters.model_validate(given)
    except ValidationError as error:
        told = "; ".join(_told(problem, given) for problem in error.errors())
        raise ConfigError(f"{told}.") from error


def _told(problem: Any, given: Mapping[str, str]) -> str:
    name = str(problem["loc"][0])
    return f"{name} = {given.get(name, '')[:100]!r}: {problem['msg'].lower()}"
