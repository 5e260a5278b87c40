"""The report's page: plain data in, one self-contained HTML file out."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from moa_ray import comparison, figures, figures_calibration, metrics, published, selection, sure, unknowns, unsure
from moa_ray.calibration import Calibration, Quality
from moa_ray.examples import Pair
from moa_ray.published import Beside
from moa_ray.sheet import Sheet, percent
from moa_ray.sure import Sure
from moa_ray.tables import (
    BACKBONE,
    CANDIDATE,
    COMPOUND,
    CONCENTRATION,
    FOLD,
    LABEL,
    probability_column,
)
from moa_ray.unsure import Unsure

MOST_CONFUSIONS = 6
MOST_ROWS = 50  # of a leaderboard, and of failed trials; all are in leaderboard.csv and the ledger


@dataclass(frozen=True)
class Failure:
    """A trial that did not finish, and why."""

    candidate: str
    fold: str
    status: str
    attempts: int
    error: str


@dataclass(frozen=True)
class Search:
    """How the candidates came to be and were judged, where a search proposed them.

    states : one row a candidate in the order of their proposal, one column a search fold in the race's order, then one
        a confirm fold: the status of the trial, or missing
    confirm : names of the folds that the choice did not see
    scores : of the winner on these folds alone; empty where there are none or no candidate won
    over_all : of the winner on all folds, those used for choosing among them
    saved : share of the epochs of all candidates on all search folds that was not trained
    objective, rule : what the choice went by, in words
    """

    states: pd.DataFrame
    confirm: Sequence[str]
    scores: Mapping[str, Any]
    over_all: Mapping[str, Any]
    saved: float
    objective: str
    rule: str


@dataclass(frozen=True)
class FirstLook:
    """What heads on frozen features showed of the backbones before any was fine-tuned.

    board : one row a look, best first, as `metrics.leaderboard` has them, with image_size; may be empty
    dropped : backbones that were not fine-tuned
    unseen : backbones of which nothing was looked at
    keep : how many were to go on; None where the look dropped none
    majority : share of the treatments that have the most frequent label; None where nothing was predicted
    """

    board: pd.DataFrame
    dropped: Sequence[str]
    unseen: Sequence[str]
    keep: int | None
    majority: float | None


@dataclass(frozen=True)
class Content:
    """What a report says.

    leaderboard, treatments : as `metrics` makes them, of all candidates; `treatments` may be empty
    history : as `figures.accuracy_over_epochs` takes it; may be empty
    labels, channels : of the screen
    tiles : example tiles of each label, see `figures.example_tiles`
    excluded : folds that were not trained, with the reason
    recipes : all hyperparameters of each candidate
    notes : what a reader has to know first, such as that images are painted
    search : where a search proposed the candidates
    corrected : accuracy without the luck of the best of several candidates, where all of them finished all folds
    look : where the backbones were looked at before
    fields, no_fields : example fields of each label, and a sentence on what is not shown
    n_treatments : that the screen has, those that cannot be scored included; None where it is not known
    unscored : treatments that no fold that can be trained holds out: compound, concentration, label, fold, reason
    reference, compared : name of the published results that were asked for, and candidates laid beside them
    given : the table of predictions made elsewhere, where there is no ledger
    sure : how sure each prediction of the headline's candidate is
    samples : as `metrics.sampled` makes them: what each sample of a method (``mc_dropout``, ``laplace``, or
        ``ensemble``, whose samples are numbered by seed) said of each treatment, not renormalised; may be empty
    unsure : how unsure the headline's candidate is; None where nothing was predicted
    calibration : of the treatments that the headline is about; None where there are none
    """

    study: str
    seed: int
    command: str
    leaderboard: pd.DataFrame
    treatments: pd.DataFrame
    history: pd.DataFrame
    labels: Sequence[str]
    channels: Sequence[str | None]
    how: metrics.How = "median"
    tiles: Mapping[str, Sequence[NDArray[np.uint8]]] = field(default_factory=dict)
    excluded: Mapping[str, str] = field(default_factory=dict)
    failures: Sequence[Failure] = ()
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    search: Search | None = None
    corrected: selection.Corrected | None = None
    look: FirstLook | None = None
    fields: Sequence[Pair] = ()
    no_fields: str = ""
    n_treatments: int | None = None
    unscored: pd.DataFrame = field(default_factory=pd.DataFrame)
    reference: str | None = None
    compared: Sequence[Beside] = ()
    given: str | None = None
    sure: Sure = field(default_factory=Sure)
    samples: pd.DataFrame = field(default_factory=pd.DataFrame)
    unsure: Unsure | None = None
    calibration: Calibration | None = None

    @property
    def best(self) -> dict[str, Any] | None:
        """The leaderboard's first row that has predictions, scored as the headline is; None where all trials failed."""
        scored = self.leaderboard[self.leaderboard["n"] > 0]
        if scored.empty:
            return None
        return dict(scored.iloc[0]) | dict(self.search.scores if self.search else {})

    @property
    def judged(self) -> pd.DataFrame:
        """The treatments that the headline is about."""
        mine = self.treatments_of(self.best[CANDIDATE]) if self.best else self.treatments
        return mine[mine[FOLD].isin(self.search.confirm)] if self.search and self.search.scores else mine

    def treatments_of(self, candidate: str) -> pd.DataFrame:
        """The treatments that one candidate predicted."""
        return self.treatments[self.treatments[CANDIDATE] == candidate]


# The headline ---------------------------------------------------------------------------------------------------------


def headline(content: Content) -> str:
    """The result in one line, with everything that it has to be judged by."""
    best = content.best
    if best is None:
        return "No prediction: no trial finished."
    unfinished = "" if best["complete"] else f"UNFINISHED ({_reached(content, best)}): "
    scored = f"; {scorable(content)}" if len(content.unscored) else ""
    return (
        f"{unfinished}{best['k']} of {best['n']} treatments right, {percent(best['treatment_accuracy'])} "
        f"({interval(best)}); {best[CANDIDATE]}; {chosen(content)}; {baseline(content)}{scored}"
    )


def scorable(content: Content) -> str:
    """How many of the screen's treatments any fold can score; empty where all of them can be, or it is not known."""
    if content.n_treatments is None or content.unscored.empty:
        return ""
    return f"{content.n_treatments - len(content.unscored)} of {content.n_treatments} treatments can be scored"


def _reached(content: Content, best: Mapping[str, Any]) -> str:
    if content.given is not None:
        return f"{best['n']} of {best['n_treatments']} treatments"
    return f"{best['folds_finished']} of {best['n_folds']} folds"


def interval(best: Mapping[str, Any]) -> str:
    """Wilson's interval and that of the bootstrap, and of an ensemble how many treatments its members have right."""
    words = (
        f"95 % Wilson interval {percent(best['wilson_low'])} to {percent(best['wilson_high'])}; 95 % bootstrap over "
        f"{best['compounds']} compounds {percent(best['compound_low'])} to {percent(best['compound_high'])}"
    )
    if pd.isna(best.get("seeds")):
        return words
    low, high = (round(best[f"seed_accuracy_{end}"] * best["n"]) for end in ("low", "high"))
    several = "seeds" if "," in best["seeds"] else "seed"
    right = str(low) if low == high else f"{low} to {high}"
    return f"{words}; {several} {best['seeds']}: {right} of {best['n']}"


def baseline(content: Content) -> str:
    """What the majority class alone would get, on the same treatments."""
    assert content.best is not None, "there is no baseline without treatments"
    label, k, n = metrics.majority(content.judged)
    return f"always saying '{label}', the majority class: {k} of {n}, {percent(k / n)}"


def chosen(content: Content) -> str:
    """What chose the candidate of the headline, and whether a choice saw the folds that it is judged on."""
    if content.look is None or not content.look.dropped:
        return _chosen(content)
    names = ", ".join(content.look.dropped)
    if content.search and content.search.scores:
        return f"{_chosen(content)}; backbones were dropped by a look at the search folds ({names})"
    seen = f"backbones were dropped by a look at these folds ({names}): optimistic, and nothing corrects it"
    return f"the one recipe that was left; {seen}" if len(content.leaderboard) == 1 else f"{_chosen(content)}; {seen}"


def is_optimistic(content: Content) -> bool:
    """Whether a choice among candidates or backbones saw the treatments that the headline is about."""
    if content.search and content.search.scores:
        return False
    return len(content.leaderboard) > 1 or (content.look is not None and bool(content.look.dropped))


def _chosen(content: Content) -> str:
    tried, complete = len(content.leaderboard), int(content.leaderboard["complete"].sum())
    if content.given is not None:
        return _chosen_elsewhere(content, tried, complete)
    if content.search and content.search.scores:
        return (
            f"the best of {tried} candidates by {content.search.objective} on the search folds; "
            f"judged on {len(content.search.confirm)} folds that no choice saw"
        )
    if tried == 1:
        return "one fixed recipe, nothing was chosen"
    if complete == 0:
        return f"none of {tried} recipes finished all folds"
    if complete == 1:
        return f"the only one of {tried} recipes that finished all folds"
    rest = f" ({tried - complete} more did not finish)" if complete < tried else ""
    return f"best of {complete} recipes judged on the same folds{rest}: optimistic, {correction(content)}"


def _chosen_elsewhere(content: Content, tried: int, complete: int) -> str:
    if tried == 1:
        return "one candidate of a table made elsewhere; what chose it is not known"
    if complete < 2:
        return f"{'none' if complete == 0 else 'the only one'} of {tried} candidates given that has all treatments"
    rest = f" ({tried - complete} more lack some)" if complete < tried else ""
    return f"best of {complete} candidates given, on the same treatments{rest}: optimistic, {correction(content)}"


def correction(content: Content) -> str:
    """What is left without the luck of the best."""
    if content.corrected is None:
        return "not corrected"
    low, high = percent(content.corrected.low), percent(content.corrected.high)
    return f"corrected by BBC-CV {percent(content.corrected.accuracy)} ({low} to {high})"


# The figures ----------------------------------------------------------------------------------------------------------


def draw(content: Content) -> dict[str, Figure]:
    """Every figure of the page by its file name; those that there is no data for are left out."""
    drawn: dict[str, Figure] = {}
    best = content.best
    if best is not None:
        _, k, n = metrics.majority(content.treatments_of(best[CANDIDATE]))
        drawn["leaderboard"] = figures.accuracies(content.leaderboard, baseline=k / n)
    if content.look is not None and (content.look.board["n"] > 0).any():
        drawn["first_look"] = figures.first_look(content.look.board, content.look.dropped, content.look.majority)
    if content.search is not None:
        drawn["race"] = figures.race(content.search.states, len(content.search.confirm))
    if len(content.history):
        drawn["accuracy_over_epochs"] = figures.accuracy_over_epochs(content.history)
    if "held_out_accuracy" in content.history:
        drawn["held_out_over_epochs"] = figures.held_out_over_epochs(content.history)
    for candidate in _confused(content):
        counts = metrics.confusion(content.treatments_of(candidate), content.labels)
        drawn[f"confusion-{candidate}"] = figures.confusion(counts)
    if best is not None and len(_mistakes(content)):
        drawn["wrong_treatments"] = figures.wrong_treatments(content.treatments_of(best[CANDIDATE]))
    if content.calibration is not None:
        drawn["calibration"] = figures_calibration.reliability(content.calibration)
    if any(one.n for one in content.compared):
        drawn["side_by_side"] = figures.side_by_side([one for one in content.compared if one.n])
    drawn |= sure.draw(content.sure)
    if content.unsure is not None:
        drawn |= unsure.draw(content.unsure)
    if content.fields:
        drawn["example_fields"] = figures.example_fields(content.fields, content.channels)
    if any(len(examples) for examples in content.tiles.values()):
        drawn["example_tiles"] = figures.example_tiles(content.tiles)
    return drawn


def _confused(content: Content) -> list[str]:
    """The best candidate of each backbone."""
    board = content.leaderboard
    shown = board["complete"] if content.search and board["complete"].any() else board["n"] > 0
    return list(board[shown].drop_duplicates(BACKBONE)[CANDIDATE].head(MOST_CONFUSIONS))


def _mistakes(content: Content) -> pd.DataFrame:
    best = content.best
    return figures.surest_mistakes(content.treatments_of(best[CANDIDATE])) if best else content.treatments


def _image(name: str, figure: Figure, saved: Path | None) -> str:
    """A data URI. An image element keeps each figure's ids to itself, which SVG within the page would mix."""
    if name in ("example_tiles", "example_fields"):
        return "data:image/png;base64," + base64.b64encode(figures.png(figure, dpi=110)).decode()
    svg = figures.paths(saved, name)[0].read_bytes() if saved else figures.svg(figure).encode()
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


_Column = tuple[str, bool, Callable[[Any], str]]  # heading, whether it holds numbers, a row's text


# The page -------------------------------------------------------------------------------------------------------------


def render(content: Content, drawn: Mapping[str, Figure] | None = None, saved: Path | None = None) -> str:
    """The page as HTML: it needs no network and no script, and everything in it is escaped.

    drawn : the figures where `draw` has made them already
    saved : the folder that `figures.save` has put them into, so that they are not drawn a second time
    """
    drawn = draw(content) if drawn is None else drawn
    best = content.best
    # Autoescape: names of compounds, errors and paths are what users and files say.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("moa_ray", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        content=content,
        best=best,
        percent=percent(best["treatment_accuracy"]) if best else "",
        interval=interval(best) if best else "",
        baseline=baseline(content) if best else "",
        chosen=chosen(content),
        over_all=_over_all(content),
        looks=look_sheet(content.look) if content.look else None,
        images={name: _image(name, figure, saved) for name, figure in drawn.items()},
        confused=_confused(content),
        unfinished=set(content.leaderboard.loc[~content.leaderboard["complete"], CANDIDATE]),
        board=board_sheet(content),
        most_rows=MOST_ROWS,
        least_p=_least_p(content),
        calibration=calibration_sheet(content.calibration) if content.calibration else None,
        calibration_says=calibration_words(content.calibration) if content.calibration else "",
        mistakes=mistakes_sheet(content),
        recipe=_recipe_sheet(content),
        tiles_caption=figures.tiles_caption(content.channels),
        fields_caption=figures.fields_caption(content.fields, content.channels),
        reached=_reached(content, best) if best else "",
        scorable=scorable(content),
        unscored=unscored_sheet(content),
        beside=beside_sheet(content.compared),
        differing=differing_sheet(content.compared),
        others=others_sheet(),
        published=published,
        held_out=held_out(content),
        sure=sure,
        labels_held_out=unknowns.holds_out_labels(content.treatments),
        rejections=unsure.rejection_sheet(content.unsure) if content.unsure else None,
        separations=unsure.separation_sheet(content.unsure) if content.unsure else None,
    )


def board_sheet(content: Content) -> Sheet:
    """The leaderboard as it is printed, results before hyperparameters; a candidate's name begins with its backbone."""
    board, elsewhere = content.leaderboard.head(MOST_ROWS), content.given is not None
    trained: list[_Column] = [
        ("folds", True, _folds),
        ("by well", True, lambda row: percent(row["well_accuracy"])),
        ("by tile", True, lambda row: percent(row["tile_accuracy"])),
        ("epochs", True, lambda row: str(row["epochs_trained"])),
        ("time", True, lambda row: _duration(row["seconds"])),
        ("weights", False, lambda row: PurePath(str(row["weights"])).name),
    ]
    tested: list[_Column] = [
        ("against the best", False, lambda row: row["against_best"] or "–"),
        ("fewer right", True, _behind),
        ("permutation p", True, lambda row: _corrected_p(row, "permutation_holm")),
        ("McNemar p", True, lambda row: _corrected_p(row, "mcnemar_holm")),
    ]
    columns: list[_Column] = [
        ("candidate", False, lambda row: str(row[CANDIDATE])),
        ("right", True, lambda row: f"{row['k']} of {row['n']}" if row["n"] else "–"),
        ("accuracy", True, lambda row: percent(row["treatment_accuracy"])),
        ("95 % Wilson", True, _interval),
        ("95 % over compounds", True, _over_compounds),
        *([("seeds", True, _seeds)] if "seeds" in board else []),
        *(tested if len(board) > 1 else []),
        *([] if elsewhere else trained[:3]),
        ("macro F1", True, lambda row: _decimals(row["macro_f1"])),
        ("log-loss", True, lambda row: _decimals(row["log_loss"])),
        ("calibration error", True, lambda row: _decimals(row["calibration_error"])),
        *([("stopped", False, lambda row: str(row["stopped_why"]))] if content.search else []),
        *([("treatments", True, lambda row: f"{row['n']} of {row['n_treatments']}")] if elsewhere else trained[3:]),
        *((name, False, lambda row, name=name: _value(row[name])) for name in metrics.hyperparameters(board)),
    ]
    rows = [[form(row) for _, _, form in columns] for row in board.to_dict("records")]
    return Sheet([heading for heading, _, _ in columns], rows, [numeric for _, numeric, _ in columns])


def _least_p(content: Content) -> float:
    """What no corrected p-value of the leaderboard's permutation test can go below."""
    board = content.leaderboard
    compared = int(board["permutation_p"].notna().sum())
    return comparison.least_p(int(board["compounds"].max()), compared) if compared else 0.0


def mistakes_sheet(content: Content) -> Sheet:
    """Every treatment that the headline's candidate got wrong, the surest mistake first."""
    complete = set(content.leaderboard.loc[content.leaderboard["complete"], CANDIDATE])
    everyone = content.treatments[content.treatments[CANDIDATE].isin(complete)] if complete else content.treatments
    headings = ["compound", "µmol/L", "true label", "its probability", "predicted label", "its probability"]
    counted = [name for name in (metrics.REPLICATES, metrics.TILES) if name in content.treatments]
    headings += [{metrics.REPLICATES: "wells"}.get(name, name) for name in counted] + ["candidates wrong here"]
    rows = []
    for _, row in _mistakes(content).iterrows():
        same = everyone[(everyone[COMPOUND] == row[COMPOUND]) & (everyone[CONCENTRATION] == row[CONCENTRATION])]
        wrong = int((same[metrics.PREDICTED] != same[LABEL]).sum())
        true, taken = (f"{row[probability_column(row[name])]:.3f}" for name in (LABEL, metrics.PREDICTED))
        cells = [row[COMPOUND], f"{row[CONCENTRATION]:g}", row[LABEL], true, row[metrics.PREDICTED], taken]
        rows.append([*cells, *(str(row[name]) for name in counted), f"{wrong} of {len(same)}"])
    return Sheet(headings, rows, [False, True, False, True, False, True, *[True] * len(counted), True])


def calibration_sheet(found: Calibration) -> Sheet:
    """Calibration before and after temperature scaling, one column each."""
    shown = {"as predicted": found.before, "with a temperature": found.after}
    columns = {name: quality for name, quality in shown.items() if quality is not None}
    rows: list[tuple[str, Callable[[Quality], str]]] = [
        ("mean confidence", lambda one: percent(one.confidence)),
        ("right", lambda one: f"{percent(one.accuracy)} of {one.n}"),
        ("expected calibration error", lambda one: _decimals(one.error)),
        (
            f"its 95 % interval over {found.before.compounds} compounds",
            lambda one: f"{_decimals(one.error_low)} to {_decimals(one.error_high)}",
        ),
        ("of a calibrated network, by chance", lambda one: _decimals(one.chance)),
        ("negative log-likelihood (nats)", lambda one: _decimals(one.log_loss)),
        ("Brier score (0 to 2)", lambda one: _decimals(one.brier)),
    ]
    cells = [[name, *(form(quality) for quality in columns.values())] for name, form in rows]
    return Sheet(["", *columns], cells, [False, *[True] * len(columns)])


def calibration_words(found: Calibration) -> str:
    """What the calibration means."""
    before, after = found.before, found.after
    verdict = "no further apart than chance allows"
    if before.gap_low > 0:
        verdict = "it is right more often than it says"
    elif before.gap_high < 0:
        verdict = "it is surer than it should be"
    says = f"{percent(before.confidence)} sure on average and right in {percent(before.accuracy)} of the treatments"
    if after is None:
        return f"It is {says}: {verdict}. There is no other compound to fit a temperature on."
    low, high = min(found.temperatures.values()), max(found.temperatures.values())
    effect = "sharpens" if high < 1 else "evens out" if low > 1 else "hardly changes"
    error, loss = (
        f"{'falls' if new < old else 'rises'} from {_decimals(old)} to {_decimals(new)}"
        for old, new in ((before.error, after.error), (before.log_loss, after.log_loss))
    )
    return (
        f"It is {says}: {verdict}. A temperature fitted for each compound on the others alone ({low:.2f} to "
        f"{high:.2f}) {effect} the probabilities: the calibration error {error}, the negative log-likelihood {loss}. "
        "No predicted label changes."
    )


def held_out(content: Content) -> str:
    """The columns that the folds held out, as their names begin; empty where that is not known."""
    if FOLD not in content.treatments or content.treatments.empty:
        return ""
    return str(content.treatments[FOLD].iloc[0]).partition("=")[0].replace(",", ", ")


def unscored_sheet(content: Content) -> Sheet:
    """Every treatment that cannot be scored, with the reason."""
    rows = [
        [row[COMPOUND], f"{row[CONCENTRATION]:g}", row[LABEL], row["reason"]]
        for row in content.unscored.to_dict("records")
    ]
    return Sheet(["compound", "µmol/L", "label", "reason"], rows, [False, True, False, False])


def beside_sheet(compared: Sequence[Beside]) -> Sheet:
    """Each candidate beside the published network of its backbone, in numbers of treatments."""
    headings = ["candidate", "published", "compared", "right here", "right published", *published.OUTCOMES]
    headings += ["exact McNemar p", "treatments only here", "treatments only published", "labelled otherwise"]
    rows = []
    for one in compared:
        if one.network is None:
            rows.append([one.candidate, "none", *["–"] * 8, str(one.only_here), "–", "–"])
            continue
        counts, network = one.counts, one.network
        here, there = (
            counts[published.BOTH] + counts[only] for only in (published.ONLY_HERE, published.ONLY_PUBLISHED)
        )
        rows.append(
            [
                *(one.candidate, f"{network.k} of {network.n}, {network.accuracy} %", str(one.n)),
                *(f"{k}, {percent(k / one.n)}" if one.n else "–" for k in (here, there)),
                *(str(counts[outcome]) for outcome in published.OUTCOMES),
                _p_value(one.p_value) if one.n else "–",
                *(str(one.only_here), str(one.only_published), str(one.relabelled)),
            ]
        )
    return Sheet(headings, rows, [False, *[True] * (len(headings) - 1)])


def differing_sheet(compared: Sequence[Beside]) -> Sheet:
    """Every treatment that a candidate or the published network got wrong."""
    headings = ["backbone", "compound", "µmol/L", "true label", "here", "published", "outcome"]
    rows = [
        [
            *(one.backbone, row[COMPOUND], f"{row[CONCENTRATION]:g}", row[LABEL]),
            *(row[metrics.PREDICTED], row[published.THEIRS], row[published.OUTCOME]),
        ]
        for one in compared
        for row in one.table[one.table[published.OUTCOME] != published.BOTH].to_dict("records")
    ]
    return Sheet(headings, rows, [False, False, True, False, False, False, False])


def others_sheet() -> Sheet:
    """What others published for the same treatments."""
    rows = [
        [
            other.work,
            f"{other.nsc:g} %",
            "–" if other.nscb is None else f"{other.nscb:.1f} %",
            other.protocol,
            other.source,
        ]
        for other in published.OTHERS
    ]
    return Sheet(["work", "NSC", "NSCB", "protocol", "source"], rows, [False, True, True, False, False])


def look_sheet(look: FirstLook) -> Sheet:
    """The first look as it is printed, and what followed from it."""
    headings = ["backbone", "weights", "pixels", "right", "accuracy", "95 % interval", "log-loss", "folds", "then"]
    rows = [
        [
            *(str(row["backbone"]), PurePath(str(row["weights"])).name, str(row["image_size"])),
            *(f"{row['k']} of {row['n']}" if row["n"] else "–", percent(row["treatment_accuracy"]), _interval(row)),
            *(_decimals(row["log_loss"]), _folds(row)),
            "dropped" if row["backbone"] in look.dropped else "went on",
        ]
        for row in look.board.to_dict("records")
    ]
    return Sheet(headings, rows, [False, False, True, True, True, True, True, True, False])


def _recipe_sheet(content: Content) -> Sheet:
    """All hyperparameters of the headline's candidate."""
    recipe = content.recipes.get(content.best[CANDIDATE], {}) if content.best else {}
    flat = pd.json_normalize(dict(recipe)).iloc[0].to_dict() if recipe else {}
    return Sheet(["hyperparameter", "value"], [[str(name), _value(value)] for name, value in flat.items()], [False] * 2)


def _over_all(content: Content) -> str:
    """The winner on every fold, where some of them chose it."""
    if content.search is None or not content.search.scores:
        return ""
    scores = content.search.over_all
    share = f"{scores['k']} of {scores['n']}, {percent(scores['treatment_accuracy'])} ({interval(scores)})"
    return f"{share}: includes the folds used for choosing, optimistic"


def _interval(row: Mapping[str, Any]) -> str:
    return f"{percent(row['wilson_low'])} to {percent(row['wilson_high'])}" if row["n"] else "–"


def _seeds(row: Mapping[str, Any]) -> str:
    """The members of an ensemble, and the accuracies of the worst and the best."""
    if pd.isna(row["seeds"]):
        return "–"
    return f"{row['seeds']}: {percent(row['seed_accuracy_low'])} to {percent(row['seed_accuracy_high'])}"


def _over_compounds(row: Mapping[str, Any]) -> str:
    return f"{percent(row['compound_low'])} to {percent(row['compound_high'])}" if row["n"] else "–"


def _behind(row: Mapping[str, Any]) -> str:
    """By how many treatments the best one is ahead, of how many both have."""
    return "–" if pd.isna(row["permutation_p"]) else f"{row['behind']:.0f} of {row['compared']}"


def _corrected_p(row: Mapping[str, Any], name: str) -> str:
    return "–" if pd.isna(row[name]) else _p_value(row[name])


def _folds(row: Mapping[str, Any]) -> str:
    rest = "".join(f", {row[f'folds_{how}']} {how}" for how in ("stopped", "failed") if row[f"folds_{how}"])
    return f"{row['folds_finished']} of {row['n_folds']}{rest}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _decimals(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.3f}"


def _value(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:g}"
    return (", ".join(map(_value, value)) or "none") if isinstance(value, list | tuple) else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
