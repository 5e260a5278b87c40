"""Which recipe to try next: beside a report's section of the search the only module that imports Optuna.

Optuna's study is a view of the race: it is made anew, in memory, from how all candidates stand whenever a proposal is
wanted, and each proposal has a seed of its own. So a search that was interrupted goes on as if it had not been. A
journal of it is kept in OUT for optuna-dashboard; nothing reads it back.

References
----------
Akiba et al. 2019, "Optuna: a next-generation hyperparameter optimization framework"; Bergstra et al. 2011 (TPE); Hansen
2016, "The CMA evolution strategy: a tutorial".
"""

import json
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from moa_ray.config.hyperparameters import Choice, Entry
from moa_ray.config.search import OptunaSettings
from moa_ray.config.search_space import Space, is_whole
from moa_ray.search.standing import Standing
from moa_ray.tracking.results import Proposal

JOURNAL = "optuna.journal"

# Of finding a recipe that was not proposed yet: by the sampler itself, then at random or, without ranges, one by one.
_TRIES, _MORE_TRIES = 10, 40
# A candidate that waits counts as stopped for the sampler, and may go on later all the same.
_SEEN_AS = {
    "running": TrialState.RUNNING,
    "waiting": TrialState.PRUNED,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "complete": TrialState.COMPLETE,
}


class Proposer:
    """Proposes recipes of a space, each once.

    Parameters
    ----------
    space : Space
        The search space.
    settings : OptunaSettings
        The section ``search`` of the sweep file.
    seed : int
        The sweep's seed.
    """

    def __init__(self, space: Space, settings: OptunaSettings, seed: int) -> None:
        self._space, self._settings, self._seed = space, settings, seed
        self._distributions = {key: _distribution(key, entry) for key, entry in space.entries.items()}
        # What CMA-ES keeps of itself on a trial; after a restart it begins again from what the candidates reached.
        self._system: dict[int, dict[str, Any]] = {}
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

    def propose(self, standings: Sequence[Standing]) -> Proposal | None:
        """Propose the next candidate.

        Parameters
        ----------
        standings : sequence of Standing
            All candidates so far, in the order of their proposal.

        Returns
        -------
        Proposal or None
            None where the space has no further recipe.
        """
        number = len(standings)
        proposed = {standing.proposal.recipe.candidate for standing in standings}
        fallback = "random" if self._space.ranged else "grid"
        for attempt in range(_TRIES + _MORE_TRIES):
            kind = self._settings.sampler if attempt < _TRIES else fallback
            study = self._study(standings, self._sampler(kind, number, attempt))
            if number < len(self._settings.first):
                study.enqueue_trial(self._named(self._settings.first[number]))
            trial = study.ask()
            values = self._space.draw(partial(self._pick, trial))
            recipe = self._space.recipe(values)
            if recipe.candidate not in proposed:
                self._system[number] = study.trials[-1].system_attrs
                return Proposal(number, recipe, values)
        return None

    def study(self, standings: Sequence[Standing]) -> optuna.Study:
        """Make Optuna's study of the candidates, for its figures.

        Parameters
        ----------
        standings : sequence of Standing
            All candidates.

        Returns
        -------
        optuna.Study
            In memory, a trial a candidate.
        """
        return self._study(standings, None)

    def trial(self, standing: Standing, state: TrialState | None = None) -> FrozenTrial:
        """Make Optuna's trial of a candidate, with its running mean over folds as intermediate values.

        Parameters
        ----------
        standing : Standing
            Where the candidate stands.
        state : TrialState or None
            What the trial counts as; None where the standing says it.

        Returns
        -------
        optuna.trial.FrozenTrial
        """
        state = _SEEN_AS[standing.state] if state is None else state
        values = standing.proposal.values
        means = {count: self._value(standing.losses[:count]) for count in range(1, len(standing.losses) + 1)}
        return create_trial(
            state=state,
            value=self._value(standing.losses) if state == TrialState.COMPLETE else None,
            params={key: self._name(key, value) for key, value in values.items()},
            distributions={key: self._distributions[key] for key in values},
            intermediate_values=means,
            user_attrs={"candidate": standing.proposal.recipe.candidate, "why": standing.why},
            system_attrs=self._system.get(standing.proposal.number, {}),
        )

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Whether Optuna minimises or maximises the objective."""
        return "maximize" if self._settings.objective == "treatment_accuracy" else "minimize"

    def _study(self, standings: Sequence[Standing], sampler: Any) -> optuna.Study:
        study = optuna.create_study(direction=self.direction, sampler=sampler)
        study.add_trials([self.trial(standing) for standing in standings])
        return study

    def _sampler(self, kind: str, number: int, attempt: int) -> Any:
        seed = (self._seed * 1_000_003 + number * 101 + attempt) % 2**32
        if kind == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if kind == "grid":
            return optuna.samplers.BruteForceSampler(seed=seed)
        if kind == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, consider_pruned_trials=True, warn_independent_sampling=False)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)

    def _pick(self, trial: optuna.Trial, key: str, entry: Entry) -> Any:
        distribution = self._distributions[key]
        if isinstance(entry, Choice):
            return entry.choices[_labels(entry).index(trial.suggest_categorical(key, _labels(entry)))]
        if isinstance(distribution, IntDistribution):
            return trial.suggest_int(
                key, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )
        return trial.suggest_float(key, entry.low, entry.high, step=entry.step, log=entry.log)

    def _named(self, values: dict[str, Any]) -> dict[str, Any]:
        return {key: self._name(key, value) for key, value in values.items()}

    def _name(self, key: str, value: Any) -> Any:
        """Return a value as Optuna has it."""
        entry = self._space.entries[key]
        if isinstance(entry, Choice):
            return _labels(entry)[entry.choices.index(value)]
        return int(value) if is_whole(key) else float(value)

    def _value(self, losses: Sequence[float]) -> float:
        mean = sum(losses) / len(losses)
        return -mean if self.direction == "maximize" else mean


class Journal:
    """The study as a file that optuna-dashboard opens, written along with the race.

    Parameters
    ----------
    out : Path
        OUT; an earlier journal in it is written anew.
    study : str
        Name of the study.
    proposer : Proposer
        Makes Optuna's trials.
    """

    def __init__(self, out: Path, study: str, proposer: Proposer) -> None:
        self._proposer = proposer
        self._written: dict[str, tuple[TrialState, int]] = {}
        path = out / JOURNAL
        path.unlink(missing_ok=True)
        storage = JournalStorage(JournalFileBackend(str(path)))
        self._study = optuna.create_study(storage=storage, study_name=study, direction=proposer.direction)

    def update(self, standings: Sequence[Standing]) -> None:
        """Write what is new. A trial's end is written once, so one that waits is running still.

        Parameters
        ----------
        standings : sequence of Standing
            All candidates.
        """
        for standing in standings:
            name = standing.proposal.recipe.candidate
            state = TrialState.RUNNING if standing.state == "waiting" else _SEEN_AS[standing.state]
            before = self._written.get(name)
            if before == (state, len(standing.losses)) or (before and before[0].is_finished()):
                continue
            frozen = self._proposer.trial(standing, state)
            if before is None:
                self._study.add_trial(frozen)
            else:
                self._add(standing.proposal.number, frozen, before[1])
            self._written[name] = state, len(standing.losses)

    def _add(self, number: int, frozen: FrozenTrial, reported: int) -> None:
        trial = optuna.Trial(self._study, self._study.trials[number]._trial_id)
        for step, value in frozen.intermediate_values.items():
            if step > reported:
                trial.report(value, step)
        if frozen.state.is_finished():
            self._study.tell(number, frozen.value, state=frozen.state)


def _labels(entry: Choice) -> list[Any]:
    """Return the choices as Optuna has them: those that are no plain values by their JSON."""
    plain = (str, int, float, bool, type(None))
    return [value if isinstance(value, plain) else json.dumps(value, sort_keys=True) for value in entry.choices]


def _distribution(key: str, entry: Entry) -> BaseDistribution:
    if isinstance(entry, Choice):
        return CategoricalDistribution(_labels(entry))
    if is_whole(key):
        return IntDistribution(int(entry.low), int(entry.high), log=entry.log, step=int(entry.step or 1))
    return FloatDistribution(entry.low, entry.high, log=entry.log, step=entry.step)
