"""Which stages of a run are done already, found as the run itself would find them; no model is made, no row written.

The walk asks for each stage in the order of `flows/train.py`: in the run's history, else by key in the table of
stages, with the stages' own functions of inputs. A key that depends on what only the run can make cannot be looked for:
behind samples that nobody has drawn yet everything is to do, behind samples that are shared it is decided as it goes.
"""

from __future__ import annotations

import importlib.metadata
import json
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flows.base_model import load_tokenizer_only
from reval_core.config import Config
from reval_core.home import Home, expand
from reval_core.identity import digest
from reval_core.policies.base import BasePolicy
from reval_core.policies.folder import base_policy_id, load_tokenizer
from reval_core.policies.materialise import Policies
from reval_core.problems import PromptRenderer
from reval_core.problems.schedule import epoch_order
from reval_core.process import ProcessIdentity
from reval_core.rollouts import make_engine
from reval_core.store import Store, lineage, runs, schedule, stages
from reval_core.store.runs import RunRecord
from reval_core.verification import Grader
from tasks.attempt import new_run
from tasks.checkpoint import checkpoint
from tasks.evaluate import evaluate
from tasks.fork import Fork, run_id_of
from tasks.generate import generate
from tasks.grading import benchmark_rewards
from tasks.inputs import Inputs
from tasks.learn import learn
from tasks.persist import persist
from tasks.progress import Progress
from tasks.report import report
from tasks.run import Here, Run
from tasks.score import score, score_window
from tasks.stage import Stage
from tasks.verify import verify

UNKNOWN: Any = object()
"""Stands for a policy, a batch or verdicts that only the run can tell."""
STAGES = ("generate", "verify", "score", "rescore", "persist", "learn", "checkpoint", "evaluate", "report")
MAKES_THE_BASE = ("path", "revision", "seed", "threads")
"""Fields of the section ``model`` that decide which base model it is."""


@dataclass
class Tally:
    """How often a stage is done, will be run, and is decided as the run goes."""

    done: int = 0
    to_do: int = 0
    undecided: int = 0


def tallies(config: Config, home: Home, fork: Fork | None, inputs: Inputs) -> dict[str, Tally]:
    """Stage to its tally, for the run that a configuration (and a fork) stands for.

    Args:
        config: the run's settings.
        home: the root.
        fork: where the run branches off, if it does.
        inputs: problems and benchmarks, as far as they can be read here.
    """
    run, owner = _outline(config, home, fork, inputs)
    walk = _Walk(run, owner, recorded=owner == run.run_id)
    with ExitStack() as stack:
        if run.base is not None:
            _fit_out(run, stack)
        walk.whole_run()
    return {name: tally for name, tally in walk.tallies.items() if tally != Tally()}


@dataclass(frozen=True)
class _Planned(Here):
    """A round whose problems are known without planning it in the store."""

    names: tuple[str, ...] = ()

    @cached_property
    def problem_ids(self) -> list[str]:
        return list(self.names)


class _Walk:
    """Asks for the stages of a run in the run's order.

    Args:
        run: with its history; where its base policy is not known here, nothing of it can be stored.
        owner: the run whose stored schedule and rounds are this run's so far.
        recorded: whether the run itself stands in the store, and not only its parent.
    """

    def __init__(self, run: Run, owner: str, *, recorded: bool) -> None:
        self.run, self.owner, self.recorded = run, owner, recorded
        self.tallies = {name: Tally() for name in STAGES}
        self._asked: set[tuple[str, int, str]] = set()
        self._new = not run.record.base_policy_id  # whether all that is not known yet is certainly not done

    def whole_run(self) -> None:
        """The order of `flows.train.train`."""
        run, evaluation = self.run, self.run.config.evaluation
        done = run.iterations_done()
        self._count_rounds_before(done)
        base = run.record.base_policy_id or UNKNOWN
        if evaluation.before:
            self._evaluate_all(Here(run, -1), base)
        here = Here(run, done - 1)
        policy = run.policy_after(done - 1) if done else base
        if done:
            self._after_round(here, policy)
        for iteration in range(done, run.config.run.iterations):
            here = self._here(iteration)
            policy = self._one_round(here, policy)
            self._after_round(here, policy)
        self._ask(checkpoint, here, policy)
        if evaluation.after:
            self._evaluate_all(here, policy)
        changed = [self.tallies[name] for name in ("learn", "evaluate")]
        if any(tally.to_do for tally in changed):
            self.tallies["report"].to_do += 1
        elif any(tally.undecided for tally in changed):
            self.tallies["report"].undecided += 1
        else:
            self._ask(report, here)

    def _count_rounds_before(self, done: int) -> None:
        """Rounds that are done; what is due after one of them stands and is not asked for again, but after the last."""
        found = set()
        for (iteration, name, _), output in self.run.history.items():
            last = done - 1 if name in ("checkpoint", "evaluate") else done
            if 0 <= iteration < last and name != "report":
                found.add((iteration, name, output.get("benchmark")))
        for _, name, _ in found:
            self.tallies[name].done += 1

    def _one_round(self, here: Here, policy: str) -> str:
        run = self.run
        reference = UNKNOWN if policy is UNKNOWN and run.objective.needs_reference else None
        if policy is not UNKNOWN:
            reference = run.reference_during(here.iteration)
        if here.reset_due or here.begins_fork:
            self._ask(checkpoint, Here(run, here.iteration - 1), policy)
            if reference is not None:
                # the window of a fork that is not recorded yet cannot be read along its own chain
                self._ask(score_window, here, reference if self.recorded else UNKNOWN)
        names_known = isinstance(here, _Planned) or (here.iteration, "generate", "") in run.history
        batch = self._ask(generate, here, policy if names_known else UNKNOWN)
        if batch is UNKNOWN and policy is not UNKNOWN and names_known:
            self._new = True
        verdicts = self._ask(verify, here, batch)
        if reference is not None:
            self._ask(score, here, batch, reference)
        entries = self._ask(persist, here, batch, verdicts, own=True)
        learned = self._ask(learn, here, policy if entries is not UNKNOWN else UNKNOWN, reference)
        return UNKNOWN if learned is UNKNOWN else str(learned.policy_id)

    def _after_round(self, here: Here, policy: str) -> None:
        if here.checkpoint_due:
            self._ask(checkpoint, here, policy)
        if here.evaluation_due:
            self._evaluate_all(here, policy)

    def _evaluate_all(self, here: Here, policy: str) -> None:
        for name in self.run.config.evaluation.benchmarks:
            benchmark = name if name in self.run.benchmarks else UNKNOWN
            self._ask(evaluate, here, policy, benchmark, label=name)

    def _ask(self, stage: Stage[..., Any], here: Here, *arguments: Any, label: str = "", own: bool = False) -> Any:
        """The stage's output where it is committed, else UNKNOWN; counted once for each place in the run.

        Args:
            stage, here, arguments: what the run would call.
            label: tells several calls at one iteration apart.
            own: the stage's rows are the run's own, so what is not in its history is to do.
        """
        place, tally = (stage.name, here.iteration, label), self.tallies[stage.name]
        counted = place in self._asked
        self._asked.add(place)
        output = self._committed(stage, here, arguments)
        if counted:
            pass
        elif output is not None:
            tally.done += 1
        elif own or self._new or UNKNOWN not in arguments:
            tally.to_do += 1
        else:
            tally.undecided += 1
        return UNKNOWN if output is None else stage.reference(**output)

    def _committed(self, stage: Stage[..., Any], here: Here, arguments: tuple[Any, ...]) -> dict[str, Any] | None:
        """Where `tasks.stage.Stage` looks: the run's history, then the table of stages by key."""
        history, slot = self.run.history, (here.iteration, stage.name, "")
        if stage.historic and slot in history:
            return history[slot]
        if (here.iteration, stage.settled_by, "") in history:
            return [output for key, output in history.items() if key[:2] == slot[:2]][-1]
        if UNKNOWN in arguments:
            return None
        key = digest(stage.name, stage.inputs(here, *arguments))
        with self.run.store.read() as connection:
            output = stages.find(connection, key)
        if output is None or not stage.present(here, stage.reference(**output)):
            return None
        history[slot if stage.historic else (here.iteration, stage.name, key)] = output
        return output

    def _here(self, iteration: int) -> Here:
        """The round with its problems, where they can be told: the first one that is not done."""
        here = Here(self.run, iteration)
        if not self.run.record.base_policy_id or iteration != self.run.iterations_done() or not self.run.weights:
            return here
        names = self._problems_of(iteration)
        return here if names is None else _Planned(self.run, iteration, names=tuple(names))

    def _problems_of(self, iteration: int) -> list[str] | None:
        """Problems that the round draws: as planned, else by the schedule made anew, if it is the stored one so far."""
        run, count = self.run, self.run.config.rollouts.prompts_per_iteration
        with run.store.read() as connection:
            planned = schedule.planned_round(connection, self.owner, iteration) if self.recorded else None
            first, _, _ = schedule.schedule_state(connection, self.owner, iteration)
            before = schedule.planned_round(connection, self.owner, iteration - 1) or []
            came = schedule.unknown(connection, self.owner, run.weights)
        if planned is not None:
            return planned
        if came:
            return None  # an epoch begins, which is planned when the run is started
        order: list[str] = []
        epoch = 0
        while len(order) < first + count:
            order += epoch_order(sorted(run.weights.items()), run.config.run.seed, epoch)
            epoch += 1
        same = order[first - len(before) : first] == before  # another seed or other problems give another schedule
        return order[first : first + count] if same else None


def _outline(config: Config, home: Home, fork: Fork | None, inputs: Inputs) -> tuple[Run, str]:
    """The run as far as it can be told without opening it, and the recorded run that its past belongs to."""
    run_id = run_id_of(config, fork)
    store = Store(home.database)
    recorded, history, owner = None, {}, run_id
    if home.database.exists():
        store.prepare()  # the schema of this version, nothing of the run
        with store.read() as connection:
            recorded = runs.find(connection, run_id)
            owner = fork.parent_run_id if fork is not None and recorded is None else run_id
            parent = runs.find(connection, owner)
            history = stages.history(connection, owner)
        if owner != run_id and fork is not None:
            history = {slot: output for slot, output in history.items() if slot[0] < fork.iteration}
        base = _recorded_base(config, home, store, parent)
    else:
        base = None
    nothing: Any = None
    run = Run(
        record=recorded or new_run(config, run_id, fork, base.policy_id if base else "", verifier_id="", versions={}),
        attempt=0,
        config=config,
        home=home,
        store=store,
        process=ProcessIdentity.mine(),
        base=base or nothing,
        tokenizer=nothing,
        renderer=nothing,
        problems=inputs.problems,
        weights=inputs.weights,
        benchmarks=inputs.benchmarks,
        policies=nothing,
        engine=nothing,
        grader=nothing,
        evaluation_graders={},
        progress=Progress(quiet=True),
        history=history,
    )
    return run, owner


def _recorded_base(config: Config, home: Home, store: Store, parent: RunRecord | None) -> BasePolicy | None:
    """The base policy, where the store knows it: the run's or its parent's, that of the model's folder, or the one that
    another run of the same model began with. None: no stage can have used it."""
    path = config.model.path
    name = parent.base_policy_id if parent else None
    if name is None and not path.startswith("builtin:") and expand(path).is_dir():
        name = base_policy_id(expand(path))
    if name is None:
        wanted = [getattr(config.model, field) for field in MAKES_THE_BASE]
        for row in store.query_live("SELECT * FROM store.runs ORDER BY created_at DESC").to_pylist():
            model = json.loads(row["config"])["model"]
            torch_then = json.loads(row["versions"]).get("torch")
            same_torch = not path.startswith("builtin:") or torch_then == importlib.metadata.version("torch")
            if same_torch and [model.get(field) for field in MAKES_THE_BASE] == wanted:
                name = row["base_policy_id"]
                break
    with store.read() as connection:
        if name is None or not lineage.exists(connection, name):
            return None
        record = lineage.policy(connection, name)
    return BasePolicy(home.root / (record.folder or ""), name, record.tokenizer_id)


def _fit_out(run: Run, stack: ExitStack) -> None:
    """What keys are made of: prompts, sampling, engine, graders. No model is loaded."""
    config, reward, base = run.config, run.config.reward, run.base
    run.tokenizer = load_tokenizer(base.folder) if base.folder.is_dir() else load_tokenizer_only(config.model)
    run.renderer = PromptRenderer(run.tokenizer, config.prompt)
    dtype = config.model.dtype
    run.policies = Policies(
        run.store, run.home.root, base, device="cpu", compute_dtype=dtype, pad_id=run.pad_id, versions={}
    )
    run.engine = make_engine(config.rollouts.engine, compute_dtype=dtype, pad_id=run.pad_id)
    run.grader = stack.enter_context(
        Grader(reward.use, reward.args, workers=1, extraction=reward.extraction, policy=reward.policy)
    )
    run.evaluation_graders = {
        name: stack.enter_context(Grader(workers=1, extraction=graded.extraction, policy=graded.policy))
        for name, graded in benchmark_rewards(config).items()
    }
