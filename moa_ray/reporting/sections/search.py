"""The search: which trials it ran and which hyperparameters mattered."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.figures import BLUE, INK, ORANGE, canvas, plain_text
from moa_ray.reporting.records import SearchRecord
from moa_ray.reporting.section import Section
from moa_ray.reporting.summary import plain
from moa_ray.search.successive_halving import FEWEST_TESTED

if TYPE_CHECKING:
    import optuna


_FEWEST_DRAWN = 4  # candidates; fewer say nothing about a hyperparameter
_STATUS_COLOURS = {
    "finished": BLUE,
    "stopped": "#F0C36D",
    "diverged": ORANGE,
    "out_of_memory": "#CC79A7",
    "crashed": INK,
    "lost": "#7F7F7F",
    "not run": "#F1F3F4",
}


@dataclass(frozen=True)
class Search(Section):
    """How a search came to its winner.

    Attributes
    ----------
    record : SearchRecord
        What the search did.
    """

    template: ClassVar[str] = "sections/search.html"
    absent: ClassVar[Mapping[str, Any]] = {"over_all_folds": None, "epochs_saved": None}
    fewest_tested: ClassVar[int] = FEWEST_TESTED
    captions: ClassVar[Mapping[str, str]] = {
        "optuna_importance": "Which hyperparameters mattered (fANOVA), over the candidates that did all search folds.",
        "optuna_slice": "Objective by each hyperparameter, over the candidates that did all search folds.",
        "optuna_parallel_coordinate": "Candidates as lines through their hyperparameters.",
    }

    record: SearchRecord

    @classmethod
    def of(cls, evidence: Evidence) -> Self | None:
        return None if evidence.search is None else cls(evidence.search)

    def figures(self) -> dict[str, Figure]:
        record = self.record
        drawn = {"race": race(record.states, len(record.confirm_folds))}
        if record.space is None:
            return drawn
        from moa_ray.search.proposer import Proposer  # with Optuna, which no other report needs

        proposer = Proposer(record.space, record.settings, record.seed)
        return drawn | hyperparameters(proposer.study(record.standings))

    def summary(self) -> dict[str, Any]:
        over_all = self.record.over_all
        return {"over_all_folds": plain(over_all) if over_all else None, "epochs_saved": self.record.saved}


def race(states: pd.DataFrame, n_confirm: int) -> Figure:
    """Draw which trials a search ran, candidates by folds, coloured by how they ended.

    Parameters
    ----------
    states : DataFrame
        One row a candidate, one column a fold: the status of the trial, or missing.
    n_confirm : int
        How many of the last columns are folds that confirm.

    Returns
    -------
    Figure
        One square a trial.
    """
    names = list(_STATUS_COLOURS)
    numbers = states.fillna("not run").map(names.index).to_numpy(dtype=int).reshape(states.shape)
    labels = [plain_text(str(fold).partition("=")[2] or str(fold)) for fold in states.columns]
    height = min(0.2 * len(states), 12) + 2.2
    figure, axes = canvas(min(0.24 * states.shape[1] + 3.2, 11), height)
    axes.pcolormesh(
        numbers,
        cmap=ListedColormap(list(_STATUS_COLOURS.values())),
        vmin=-0.5,
        vmax=len(names) - 0.5,
        edgecolors="white",
        linewidth=0.8,
    )
    if n_confirm:
        axes.axvline(states.shape[1] - n_confirm, color=INK, linewidth=2)
    axes.set_xticks(np.arange(len(labels)) + 0.5, labels, rotation=90, fontsize=7)
    every = max(1, -(-len(states) // 20))
    axes.set_yticks(np.arange(0, len(states), every) + 0.5, [str(n) for n in range(0, len(states), every)], fontsize=8)
    axes.set(ylim=(len(states), 0), ylabel="candidate, in the order of proposal")
    axes.tick_params(length=0)
    present = [name for number, name in enumerate(names) if (numbers == number).any()]
    patches = [Patch(facecolor=_STATUS_COLOURS[name], label=name.replace("_", " ")) for name in present]
    axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8)
    return figure


def hyperparameters(study: "optuna.Study") -> dict[str, Figure]:
    """Draw Optuna's figures of a search.

    Parameters
    ----------
    study : Study
        The candidates as Optuna's trials.

    Returns
    -------
    dict of str to Figure
        By file name; those that there are too few candidates for are left out.
    """
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as draw

    finished = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    searched = {name for trial in finished for name in trial.params}
    drawn: dict[str, Figure] = {}
    if len(finished) < _FEWEST_DRAWN or not searched:
        return drawn
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted: dict[str, Callable[[optuna.Study], Any]] = {
            "optuna_slice": draw.plot_slice,
            "optuna_parallel_coordinate": draw.plot_parallel_coordinate,
        }
        if len({trial.value for trial in finished}) > 1:
            wanted["optuna_importance"] = draw.plot_param_importances
        for name, plot in wanted.items():
            axes = plot(study)
            drawn[name] = (axes.flat[0] if hasattr(axes, "flat") else axes).figure
            pyplot.close(drawn[name])  # Optuna draws through pyplot, which would keep it
    return drawn
