"""How much training does a search save, and what does it cost in regret? No network is trained.

    python -m tests.benchmarks.search              # 30 seeds on a simulated clock: search.md and search.png
    python -m tests.benchmarks.search --grid       # what it takes to name a recipe as good as the grid: search-grid.md
    python -m tests.benchmarks.search --real       # 3 seeds through the real Ray Tune beside it: search-real.md

A drawn table holds the loss of 72 recipes on 38 folds at 10 epochs. Folds differ in difficulty more than recipes do in
quality, as compounds do; a little of a loss is the recipe's own on that fold, and a little is the luck of the training.
Each method spends epochs and names a recipe; its regret is how much worse that recipe's loss is than the best recipe's,
over all folds and without the luck.

moa_ray  Optuna proposes, folds race, ASHA within a fold. ASHA sees the validation loss alone.
grid     every recipe on every fold.
random   recipes drawn at random, every one on every fold (`race.Grid`).
mixed    Ray Tune's OptunaSearch with the fold as one more choice, and one ASHA over all trials. Its answer is the
         recipe of the best trial, as `ResultGrid.get_best_result` gives it.
repeater Ray Tune's Repeater around OptunaSearch: every recipe on every fold, OptunaSearch is told the mean.

`mixed` and `repeater` are shown the held-out loss after each epoch, which `moa_ray` never is: that favours them.
"""

import argparse
import heapq
import itertools
import multiprocessing
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
import pandas as pd
from matplotlib.figure import Figure
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Repeater, Searcher
from ray.tune.search.optuna import OptunaSearch

from moa_ray.config.recipe import Recipe
from moa_ray.config.search import OptunaSettings
from moa_ray.config.search_space import Space
from moa_ray.execution import cluster, fold_asha
from moa_ray.execution import tune as execution_tune
from moa_ray.execution.capacity import Capacity, Slots
from moa_ray.execution.conductor import Conductor
from moa_ray.search.grid import Grid
from moa_ray.search.plan import Plan
from moa_ray.search.proposer import Proposer
from moa_ray.search.race import Race
from moa_ray.tracking.results import Result

from .results import HERE, machine

EPOCHS = 10
FOLDS = [f"fold{number:02d}" for number in range(38)]
FIXED = {"weights": "random", "image_size": 32, "epochs": EPOCHS}
SPACE: dict[str, list[Any]] = {
    "backbone": ["ResNet50", "InceptionV3", "InceptionResNetV2"],
    "learning_rate": [float(f"{10.0**power:.3g}") for power in np.arange(-5, -1, 0.5)],
    "weight_decay": [0.0, 1e-5, 1e-3],
}
_DISTRIBUTIONS = {key: optuna.distributions.CategoricalDistribution(values) for key, values in SPACE.items()}


class World:
    """The table, drawn cell by cell from one seed."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 11])
        self.seed = seed
        self._difficulty = dict(zip(FOLDS, rng.normal(0, 0.6, len(FOLDS)), strict=True))
        self._backbone = dict(zip(SPACE["backbone"], rng.permutation([0.0, 0.05, 0.12]), strict=True))
        self._best_rate = {name: rng.normal(-3, 0.5) for name in SPACE["backbone"]}
        self._decay = dict(zip(SPACE["weight_decay"], rng.permutation([0.0, 0.02, 0.05]), strict=True))
        self.recipes = Space.read(FIXED, SPACE).grid()
        means = {recipe.candidate: self.truth(recipe) for recipe in self.recipes}
        best = min(means.values())
        self.regret = {name: mean - best for name, mean in means.items()}

    def quality(self, recipe: Recipe) -> float:
        """What a recipe loses wherever it is trained."""
        away = np.log10(recipe.learning_rate) - self._best_rate[recipe.backbone]
        return self._backbone[recipe.backbone] + self._decay[recipe.weight_decay] + 0.15 * float(min(away**2, 6))

    def truth(self, recipe: Recipe) -> float:
        """The mean loss over all folds, without the luck of a training."""
        own = float(np.mean([self._own(recipe, fold)[0] for fold in FOLDS]))
        return own + self.quality(recipe) + _ahead(recipe, EPOCHS)

    def _own(self, recipe: Recipe, fold: str) -> np.ndarray:
        """What is a recipe's own on a fold, the luck of a training, and how far the validation loss is off."""
        rng = np.random.default_rng([self.seed, zlib.crc32(f"{recipe.candidate} {fold}".encode())])
        return rng.normal(0, [0.12, 0.10, 0.05])

    def losses(self, recipe: Recipe, fold: str, epoch: int) -> tuple[float, float]:
        """Loss on the held-out compound and on the validation wells after an epoch."""
        own, luck, watched = self._own(recipe, fold)
        ahead = _ahead(recipe, epoch)
        quality, difficulty = self.quality(recipe), self._difficulty[fold]
        return 2 + difficulty + quality + own + luck + ahead, 1 + 0.3 * difficulty + 0.8 * quality + watched + ahead


def _ahead(recipe: Recipe, epoch: int) -> float:
    """The loss that a training has still to lose after an epoch; a low learning rate is slow."""
    return 1.2 * float(np.exp(-0.35 * np.clip(recipe.learning_rate / 1e-3, 0.3, 3) * epoch))


@dataclass
class Spent:
    """What a method did: epochs used and the recipe that it would name, after each candidate."""

    epochs: int = 0
    trials: int = 0
    named: list[tuple[int, str]] = field(default_factory=list)


# The methods: each is a searcher and a scheduler, as Tune takes them, and says which recipe it would name


@dataclass
class Method:
    """A search as Tune runs it.

    result : what a trial reports after an epoch
    name : the recipe that it would name now, or None
    taker : who takes a trial's end on the driver, where that is not the searcher
    """

    searcher: Searcher
    scheduler: TrialScheduler
    result: Callable[[dict[str, Any], int], dict[str, Any]]
    name: Callable[[], str | None]
    taker: execution_tune._OutcomeCallback | None = None


def ours(world: World, candidates: int, **changes: Any) -> Method:
    """moa_ray's search, over all folds."""
    settings = OptunaSettings.model_validate({"mode": "optuna", "space": SPACE, "candidates": candidates, **changes})
    order = [FOLDS[place] for place in np.random.default_rng([world.seed, 12]).permutation(len(FOLDS))]
    proposer = Proposer(Space.read(FIXED, SPACE), settings, world.seed)

    def loss(result: Result) -> float:
        return world.losses(Recipe.from_dict(result.recipe), result.fold, EPOCHS)[0]

    race = Race(proposer.propose, settings, order, [], loss)
    scheduler = fold_asha.FoldAsha(settings.asha) if settings.asha else FIFOScheduler()
    return _planned(world, race, scheduler, lambda: next(iter(race.ranking), None))


def ours_without_asha(world: World, candidates: int) -> Method:
    """The same, every epoch trained."""
    return ours(world, candidates, asha=None)


def random(world: World, candidates: int) -> Method:
    """Recipes at random, on all folds."""
    drawn = np.random.default_rng([world.seed, 13]).permutation(len(world.recipes))[:candidates]
    recipes = [world.recipes[place] for place in drawn]
    told: dict[str, list[float]] = {}

    class Noted(Grid):
        def tell(self, assignment: Any, result: Result) -> bool:
            told.setdefault(result.candidate, []).append(world.losses(assignment.recipe, result.fold, EPOCHS)[0])
            return super().tell(assignment, result)

    plan = Noted([(recipe, fold) for recipe in recipes for fold in FOLDS], retries=0)
    return _planned(
        world, plan, FIFOScheduler(), lambda: _least({n: v for n, v in told.items() if len(v) == len(FOLDS)})
    )


def mixed(world: World, candidates: int) -> Method:
    """OptunaSearch over recipes and folds, one ASHA for all."""
    seen: dict[str, list[float]] = {}
    space = {**_DISTRIBUTIONS, "fold": optuna.distributions.CategoricalDistribution(FOLDS)}
    inner = OptunaSearch(space, metric="loss", mode="min", sampler=optuna.samplers.TPESampler(seed=world.seed))
    scheduler = AsyncHyperBandScheduler("epoch", "loss", "min", max_t=EPOCHS, grace_period=2, reduction_factor=3)

    def report(config: dict[str, Any], epoch: int) -> dict[str, Any]:
        recipe = _recipe(config)
        loss = world.losses(recipe, config["fold"], epoch)[0]
        seen.setdefault(recipe.candidate, []).append(loss)
        return {"epoch": epoch, "loss": loss}

    def name() -> str | None:
        return min(seen, key=lambda candidate: min(seen[candidate])) if seen else None

    return Method(_Budget(inner, candidates * len(FOLDS) * EPOCHS), scheduler, report, name)


def repeater(world: World, candidates: int) -> Method:
    """Repeater around OptunaSearch."""
    told: dict[str, list[float]] = {}
    inner = OptunaSearch(_DISTRIBUTIONS, metric="loss", mode="min", sampler=optuna.samplers.TPESampler(seed=world.seed))

    def report(config: dict[str, Any], epoch: int) -> dict[str, Any]:
        recipe = _recipe(config)
        loss = world.losses(recipe, FOLDS[config["__trial_index__"]], epoch)[0]
        if epoch == EPOCHS:
            told.setdefault(recipe.candidate, []).append(loss)
        return {"epoch": epoch, "loss": loss}

    repeated = Repeater(inner, repeat=len(FOLDS))
    return Method(
        _Budget(repeated, candidates * len(FOLDS) * EPOCHS),
        FIFOScheduler(),
        report,
        lambda: _least({n: v for n, v in told.items() if len(v) >= len(FOLDS)}),
    )


METHODS: dict[str, Callable[[World, int], Method]] = {
    "moa_ray": ours,
    "moa_ray, asha: null": ours_without_asha,
    "random": random,
    "mixed": mixed,
    "repeater": repeater,
}
OURS = ("moa_ray", "moa_ray, asha: null")
CANDIDATES = (12, 24, 48, 72)


def _planned(world: World, plan: Plan, scheduler: TrialScheduler, name: Callable[[], str | None]) -> Method:
    # Room for all: how many run at once is for whoever asks.
    conductor = Conductor(plan, Slots(1, 0, None), [], lambda: Capacity(({"CPU": 1000.0},)))

    def report(config: dict[str, Any], epoch: int) -> dict[str, Any]:
        recipe = Recipe.from_dict(config["recipe"])
        watched = world.losses(recipe, config["fold"], epoch)[1]
        row = {"epoch": epoch, "validation_loss": watched, "seconds": 1.0}
        end = {"outcome": {"status": "finished", "epochs": epoch, "seconds": float(epoch)}, "done": True}
        return {"epoch": row, **(end if epoch == EPOCHS else {})}

    return Method(
        execution_tune._PlanSearcher(conductor),
        scheduler,
        report,
        name,
        execution_tune._OutcomeCallback(conductor, None),
    )


def _recipe(config: dict[str, Any]) -> Recipe:
    return Space.read(FIXED, SPACE).recipe({key: config[key] for key in SPACE})


def _least(told: dict[str, list[float]]) -> str | None:
    return min(told, key=lambda candidate: float(np.mean(told[candidate]))) if told else None


class _Budget(Searcher):  # type: ignore[misc]
    """Passes everything on, and ends a search that would go on for ever once its epochs are used."""

    def __init__(self, inner: Searcher, epochs: int) -> None:
        super().__init__(metric="loss", mode="min")
        self._inner, self._left = inner, epochs

    def suggest(self, trial_id: str) -> Any:
        return Searcher.FINISHED if self._left <= 0 else self._inner.suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._left -= 1
        self._inner.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        # Tune passes the last result of a trial here alone.
        self._left -= 1
        self._inner.on_trial_complete(trial_id, result, error=error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing."""


# Two ways to run one


def simulate(method: Method, slots: int) -> Spent:
    """Drive the searcher and the scheduler in this process; an epoch takes one unit of a simulated clock."""
    spent = Spent()
    events: list[tuple[float, int, Trial, int]] = []
    numbers = itertools.count()
    now, asking = 0.0, True
    while True:
        while asking and len(events) < slots:
            number = next(numbers)
            config = method.searcher.suggest(f"t{number:05d}")
            if config == Searcher.FINISHED:
                asking = False
            if not config or config == Searcher.FINISHED:
                break
            trial = Trial("replayed", stub=True, trial_id=f"t{number:05d}", config=config)
            method.scheduler.on_trial_add(None, trial)
            spent.trials += 1
            heapq.heappush(events, (now + 1, number, trial, 1))
        if not events:
            if not asking or config is None:
                return spent
            continue
        now, number, trial, epoch = heapq.heappop(events)
        spent.epochs += 1
        if not _take(method, trial, epoch):
            heapq.heappush(events, (now + 1, number, trial, epoch + 1))
        elif (name := method.name()) is not None:
            spent.named.append((spent.epochs, name))


def _take(method: Method, trial: Trial, epoch: int) -> bool:
    """One result, in the order in which Tune passes it on; whether the trial ends with it."""
    result = method.result(trial.config, epoch)
    flat = {**result, "training_iteration": epoch}
    if isinstance(result["epoch"], dict):
        flat |= {f"epoch/{name}": value for name, value in result["epoch"].items()}
    done = epoch == EPOCHS
    if done:
        method.scheduler.on_trial_complete(None, trial, flat)
        stop = False
    else:
        stop = method.scheduler.on_trial_result(None, trial, flat) == TrialScheduler.STOP
        if not stop:
            method.searcher.on_trial_result(trial.trial_id, flat)
    if method.taker is not None:
        method.taker.on_trial_result(0, [], trial, result)
        if stop:
            method.taker.on_trial_complete(0, [], trial)
    if done or stop:
        method.searcher.on_trial_complete(trial.trial_id, flat)
    return done or stop


def through_tune(method: Method, world: World) -> Spent:
    """Run it by the real Ray Tune, one trial at a time."""
    spent = Spent()

    class Count(tune.Callback):  # type: ignore[misc]
        def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
            spent.trials += 1

        def on_trial_result(
            self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
        ) -> None:
            spent.epochs += 1
            if method.taker is None:
                method.result(trial.config, result["epoch"])

    callbacks = [Count()] + ([method.taker] if method.taker else [])
    trainable = tune.with_parameters(Replay, seed=world.seed, planned=method.taker is not None)
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=ConcurrencyLimiter(method.searcher, 1) if method.taker is None else method.searcher,
            scheduler=method.scheduler,
            num_samples=-1,
            max_concurrent_trials=1 if method.taker else None,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            verbose=0,
            callbacks=callbacks,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    ).fit()
    name = method.name()
    assert name is not None
    spent.named.append((spent.epochs, name))
    return spent


class Replay(tune.Trainable):  # type: ignore[misc]
    """Reports what the table holds."""

    def setup(self, config: dict[str, Any], seed: int, planned: bool) -> None:
        self._world, self._planned_run = World(seed), planned
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._given, self._epoch = new_config, 0
        return True

    def step(self) -> dict[str, Any]:
        self._epoch += 1
        if self._planned_run:
            return _planned(self._world, Grid([], 0), FIFOScheduler(), lambda: None).result(self._given, self._epoch)
        fold = self._given["fold"] if "fold" in self._given else FOLDS[self._given["__trial_index__"]]
        loss = self._world.losses(_recipe(self._given), fold, self._epoch)[0]
        return {"epoch": self._epoch, "loss": loss, "done": self._epoch == EPOCHS}


# The comparison


def points(seed: int, slots: int) -> list[tuple[str, int, str, int, float]]:
    """Method, seed, whose budget, epochs and regret.

    A budget is what moa_ray used for a number of candidates; the others go on to the same epochs.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    world = World(seed)
    grid = {r.candidate: np.mean([world.losses(r, f, EPOCHS)[0] for f in FOLDS]) for r in world.recipes}
    rows = [("grid", seed, "", len(grid) * len(FOLDS) * EPOCHS, world.regret[_least_of(grid)])]
    mine = {(name, n): simulate(METHODS[name](world, n), slots) for name in OURS for n in CANDIDATES}
    most = -(-max(spent.epochs for spent in mine.values()) // (len(FOLDS) * EPOCHS))
    others = {name: simulate(METHODS[name](world, most + 1), slots) for name in METHODS if name not in OURS}
    # Whoever has named no recipe yet would have to guess.
    guess = float(np.mean(list(world.regret.values())))
    for (name, candidates), spent in mine.items():
        budget = f"{name}, {candidates} candidates"
        rows.append((name, seed, budget, spent.epochs, world.regret[spent.named[-1][1]]))
        for other, theirs in others.items():
            named = [who for epochs, who in theirs.named if epochs <= spent.epochs]
            rows.append((other, seed, budget, spent.epochs, world.regret[named[-1]] if named else guess))
    return rows


def _least_of(means: dict[str, Any]) -> str:
    return min(means, key=lambda name: means[name])


GENTLE: dict[str, dict[str, Any]] = {
    "as it is": {},
    "asha: {grace_epochs: 5}": {"asha": {"grace_epochs": 5}},
    "asha: null": {"asha": None},
}


def against_grid(seed: int, slots: int) -> list[tuple[str, float, float]]:
    """Settings of moa_ray, share of the grid's epochs, and the regret beyond the grid's, on one seed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    world = World(seed)
    grid = {r.candidate: np.mean([world.losses(r, f, EPOCHS)[0] for f in FOLDS]) for r in world.recipes}
    rows = []
    for settings, changes in GENTLE.items():
        spent = simulate(ours(world, len(grid), **changes), slots)
        beyond = world.regret[spent.named[-1][1]] - world.regret[_least_of(grid)]
        rows.append((settings, spent.epochs / (len(grid) * len(FOLDS) * EPOCHS), beyond))
    return rows


def agreement(seeds: int) -> Iterator[dict[str, Any]]:
    """The first seeds by the real Tune and by the simulation, one trial at a time."""
    for seed, (name, make) in itertools.product(range(seeds), METHODS.items()):
        candidates = 12 if name in OURS else 3
        world = World(seed)
        simulated = simulate(make(world, candidates), slots=1)
        real = through_tune(make(world, candidates), world)
        same = (real.trials, real.epochs, real.named[-1][1]) == (
            simulated.trials,
            simulated.epochs,
            simulated.named[-1][1],
        )
        print(name, seed, real.trials, real.epochs, same, flush=True)
        yield {"method": name, "seed": seed, "trials": real.trials, "epochs": real.epochs, "agrees": same}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, with the standard error of the regret."""
    whole = table.loc[table["method"] == "grid", "epochs"].iloc[0]
    grouped = table.groupby(["budget", "method"], sort=False)
    found = grouped.agg(epochs=("epochs", "mean"), regret=("regret", "mean"), error=("regret", "sem")).reset_index()
    return found.assign(share=found["epochs"] / whole)


def draw(found: pd.DataFrame) -> Figure:
    """Regret against the share of the full grid's epochs."""
    figure = Figure(figsize=(6.8, 4.4), layout="constrained")
    axes = figure.subplots()
    colours = dict(zip(METHODS, ["#0072B2", "#56B4E9", "#9AA0A6", "#D55E00", "#009E73"], strict=True))
    for name, colour in colours.items():
        mine = found[found["method"] == name].sort_values("share")
        axes.errorbar(mine["share"], mine["regret"], mine["error"], marker="o", capsize=3, color=colour, label=name)
    grid = found[found["method"] == "grid"].iloc[0]
    axes.plot(1, grid["regret"], "k*", markersize=12, label="full grid")
    axes.set(xscale="log", yscale="log", xlabel="epochs trained, as a share of the full grid's")
    axes.set_ylabel("regret (loss): mean over seeds, its standard error")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, fontsize=8)
    return figure


def main() -> None:
    """Run, and write what was found beside this file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--real", action="store_true", help="only compare with the real Ray Tune, on 3 seeds")
    arguments.add_argument("--grid", action="store_true", help="only compare with the full grid")
    arguments.add_argument("--seeds", type=int, default=30)
    arguments.add_argument("--slots", type=int, default=4)
    given = arguments.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if given.real:
        with cluster.connect(None):
            write_agreement(list(agreement(3)))
        return
    with multiprocessing.get_context("spawn").Pool() as pool:
        if given.grid:
            found = pool.starmap(against_grid, [(seed, given.slots) for seed in range(given.seeds)], chunksize=1)
            write_against_grid(pd.DataFrame(itertools.chain.from_iterable(found)), given.seeds, given.slots)
            return
        parts = pool.starmap(points, [(seed, given.slots) for seed in range(given.seeds)], chunksize=1)
    columns = ["method", "seed", "budget", "epochs", "regret"]
    found = summary(pd.DataFrame(itertools.chain.from_iterable(parts), columns=columns))
    draw(found).savefig(HERE / "search.png", dpi=130)
    write(found, given.seeds, given.slots)


def write(found: pd.DataFrame, seeds: int, slots: int) -> None:
    """The table as Markdown."""
    rest = [name for name in METHODS if name not in OURS]
    lines = [
        "# What the search saves",
        "",
        f"`python -m tests.benchmarks.search`: {seeds} seeds, {slots} slots, a simulated clock, {machine()}. Regret "
        "is the mean over seeds, plus or minus its standard error; each line is at equal epochs. What the methods "
        "are, and how the table is drawn, stands in `search.py`.",
        "",
        "| budget | epochs, share of the full grid's | moa_ray | " + " | ".join(rest) + " |",
        "|---|---|---|" + "---|" * len(rest),
    ]
    for budget, group in found[found["method"] != "grid"].groupby("budget", sort=False):
        by_name = group.set_index("method")
        mine = next(name for name in OURS if name in by_name.index)
        cells = [f"{by_name.at[name, 'regret']:.4f} ± {by_name.at[name, 'error']:.4f}" for name in (mine, *rest)]
        lines.append(f"| {budget} | {by_name.at[mine, 'share']:.1%} | " + " | ".join(cells) + " |")
    grid = found[found["method"] == "grid"].iloc[0]
    lines += ["", f"The full grid, 100 % of its epochs: {grid['regret']:.4f} ± {grid['error']:.4f}.", ""]
    lines += ["![Regret against epochs](search.png)", ""]
    (HERE / "search.md").write_text("\n".join(lines), encoding="utf-8")


def write_against_grid(rows: pd.DataFrame, seeds: int, slots: int) -> None:
    """How far the recipe named is from the one that the full grid names."""
    rows.columns = pd.Index(["settings", "share", "beyond"])
    found = rows.groupby("settings", sort=False).agg({"share": "mean", "beyond": ["mean", "sem"]})
    lines = [
        "# All 72 recipes, raced, against the full grid",
        "",
        f"`python -m tests.benchmarks.search --grid`: {seeds} seeds, {slots} slots, a simulated clock, {machine()}. "
        "The regret beyond the grid's is paired by seed: its mean, plus or minus its standard error.",
        "",
        "| moa_ray | epochs, share of the full grid's | regret beyond the grid's |",
        "|---|---|---|",
        *(f"| {name} | {share:.1%} | {mean:+.4f} ± {error:.4f} |" for name, share, mean, error in found.itertuples()),
        "",
    ]
    (HERE / "search-grid.md").write_text("\n".join(lines), encoding="utf-8")


def write_agreement(rows: list[dict[str, Any]]) -> None:
    """What the real Tune did beside the simulation."""
    lines = [
        "# The simulation and the real Ray Tune",
        "",
        f"`python -m tests.benchmarks.search --real`: one trial at a time, {machine()}. Agrees: the same number of "
        "trials and of epochs, and the same recipe named.",
        "",
        "| method | seed | trials | epochs | agrees |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(map(str, row.values()))} |" for row in rows),
        "",
    ]
    (HERE / "search-real.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
