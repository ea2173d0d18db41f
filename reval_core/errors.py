"""Errors that a user can act on: each says what was wrong, where, and what to do."""

from __future__ import annotations


class RevalError(Exception):
    """Base of the errors that are the user's to mend; the command line prints them without a traceback."""


class ConfigError(RevalError):
    """The configuration is not usable as written."""


class VariableNotSet(ConfigError):
    """A path names an environment variable that is not set here."""


class ProblemError(RevalError):
    """A problem file cannot be read as problems."""


class PolicyError(RevalError):
    """A model folder cannot be used as a policy."""


class PromptError(RevalError):
    """A prompt cannot be rendered or does not fit the model's context."""


class StoreError(RevalError):
    """The store cannot be opened, read or written."""


class NotStored(StoreError):
    """The database could not be opened or written, for no fault of the rows; nothing of the transaction is in it."""


class StoreLocked(NotStored):
    """Another process held the database for longer than the configured wait."""


class RolloutError(RevalError):
    """A rollout engine did not give what it was asked for."""


class LeaseLost(RevalError):
    """Another attempt took over the stage that this one was computing; its result was not written."""


class LearningError(RevalError):
    """Learning cannot go on (non-finite losses in a row, a failed calibration, an impossible combination)."""


class VerificationError(RevalError):
    """Too many answers could not be graded."""


class HealthError(RevalError):
    """A watched metric is out of the bounds that the configuration sets, and its rule says to stop."""
