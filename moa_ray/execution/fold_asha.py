"""Stop trials early by asynchronous successive halving within each fold."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from moa_ray.config.search import AshaSettings
from moa_ray.execution.trial_data import EPOCH

_NEVER = 10**9  # epochs, more than any trial has


class InOrder(FIFOScheduler):  # type: ignore[misc]
    """Run trials in the order in which the plan gives them, and stop none."""

    def choose_trial_to_run(self, tune_controller: Any, **arguments: Any) -> Trial | None:
        """Choose none: Tune starts the trials that wait by itself.

        To a trial that is chosen Tune gives the next worker that is free, and ends the one that is starting for it: a
        node that joins would serve only once no trial ends while it starts.

        Parameters
        ----------
        tune_controller : TuneController
            Tune's own.
        **arguments : Any
            Further arguments of Tune's.

        Returns
        -------
        None
            Always.
        """
        return None


class FoldAsha(InOrder):
    """Compare trials of the same fold by asynchronous successive halving, and stop the worse ones.

    Folds differ in difficulty: an easy one would set the cut-off for all. Only trials that the plan calls stoppable are
    compared at all. What is compared is the loss on the validation wells.

    Parameters
    ----------
    settings : AshaSettings
        Epochs before the first comparison, and the reduction factor.

    References
    ----------
    Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020.
    """

    def __init__(self, settings: AshaSettings) -> None:
        super().__init__()
        self._settings = settings
        self._folds: dict[str, AsyncHyperBandScheduler] = {}

    def replay(self, trials: Iterable[tuple[str, str, pd.DataFrame, bool]]) -> None:
        """Take note of the trials that an earlier start left in the ledger.

        Parameters
        ----------
        trials : iterable of tuple
            In the order in which they were started: candidate, fold, history (DataFrame, one row per epoch), and
            whether the trial was trained to its end.
        """
        for candidate, fold, history, complete in trials:
            trial = Trial(
                "replayed", stub=True, trial_id=f"{candidate} {fold}", config={"fold": fold, "stoppable": True}
            )
            self.on_trial_add(None, trial)
            results = [{EPOCH + "/" + name: value for name, value in row.items()} for row in history.to_dict("records")]
            for result in results[:-1] if complete else results:
                self.on_trial_result(None, trial, result)
            if complete:
                self.on_trial_complete(None, trial, results[-1])
            else:
                self.on_trial_remove(None, trial)

    def on_trial_add(self, controller: Any, trial: Trial) -> None:
        """Pass a new trial on to the scheduler of its fold.

        Parameters
        ----------
        controller : TuneController
            Tune's own.
        trial : Trial
            The trial.
        """
        if self._concerns(trial):
            self._of(trial).on_trial_add(controller, trial)

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide after an epoch whether a trial goes on.

        Parameters
        ----------
        controller : TuneController
            Tune's own.
        trial : Trial
            The trial.
        result : dict of str to Any
            The figures of the epoch.

        Returns
        -------
        str
            Tune's CONTINUE or STOP.
        """
        if not self._concerns(trial):
            return str(TrialScheduler.CONTINUE)
        return str(self._of(trial).on_trial_result(controller, trial, result))

    def on_trial_complete(self, controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Pass the end of a trial on to the scheduler of its fold.

        Parameters
        ----------
        controller : TuneController
            Tune's own.
        trial : Trial
            The trial.
        result : dict of str to Any
            The figures of its last epoch.
        """
        if self._concerns(trial):
            self._of(trial).on_trial_complete(controller, trial, result)

    def on_trial_remove(self, controller: Any, trial: Trial) -> None:
        """Pass the removal of a trial on to the scheduler of its fold.

        Parameters
        ----------
        controller : TuneController
            Tune's own.
        trial : Trial
            The trial.
        """
        if self._concerns(trial):
            self._of(trial).on_trial_remove(controller, trial)

    def on_trial_error(self, controller: Any, trial: Trial) -> None:
        """Pass the failure of a trial on to the scheduler of its fold.

        Parameters
        ----------
        controller : TuneController
            Tune's own.
        trial : Trial
            The trial.
        """
        if self._concerns(trial):
            self._of(trial).on_trial_error(controller, trial)

    def _concerns(self, trial: Trial) -> bool:
        return bool(trial.config["stoppable"])

    def _of(self, trial: Trial) -> AsyncHyperBandScheduler:
        fold = trial.config["fold"]
        if fold not in self._folds:
            self._folds[fold] = AsyncHyperBandScheduler(
                time_attr=f"{EPOCH}/epoch",
                metric=f"{EPOCH}/validation_loss",
                mode="min",
                max_t=_NEVER,
                grace_period=self._settings.grace_epochs,
                reduction_factor=self._settings.reduction_factor,
            )
        return self._folds[fold]
