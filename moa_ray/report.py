"""Draw the report from the ledger.

    python -m moa_ray.report OUT

Makes predictions.parquet, treatments.parquet, leaderboard.csv, summary.json, report.html and figures/ anew. They are
views of the ledger and can be thrown away.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure
from numpy.typing import NDArray

from moa_ray import command, figures, metrics, page
from moa_ray.ledger import Ledger, Result, write_text
from moa_ray.page import Content, Failure
from moa_ray.tables import CANDIDATE, FIELD_KEY, FOLD, LABEL, TILE_KEY

_EXAMPLES = 6  # tiles shown of each label


@dataclass(frozen=True)
class Written:
    """What a report says and where it stands, for those who pass it on.

    candidates : for each candidate its scores, its tile predictions and its figures
    finished : whether any trial finished
    """

    headline: str
    summary: Mapping[str, Any]
    candidates: Mapping[str, tuple[dict[str, float], pd.DataFrame, list[Path]]]
    files: list[Path]
    finished: bool


def main(given: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = command.parser("report", "Draw the report again from the ledger.")
    arguments.add_argument("out", type=Path, metavar="OUT", help="the folder that a sweep left")
    return command.run(_report, arguments, given)


def _report(arguments: argparse.Namespace) -> int:
    print(write(arguments.out).headline)
    print(f"report: {arguments.out / 'report.html'}")
    return command.DONE


def write(out: Path) -> Written:
    """Write everything that a sweep leaves beside its ledger. Raises ValueError where no sweep was run at `out`."""
    book = Ledger(out)
    study = book.study()
    results = [result for result in book.results() if result.candidate in study["candidates"]]
    sweep = yaml.safe_load((out / "sweep.yaml").read_text(encoding="utf-8"))
    predictions = book.table("predictions", results)
    content = _content(study, sweep, results, predictions, _history(book, results))
    predictions.to_parquet(out / "predictions.parquet", index=False)
    content.treatments.to_parquet(out / "treatments.parquet", index=False)
    content.leaderboard.to_csv(out / "leaderboard.csv", index=False)
    summary = _summary(content, results)
    write_text(out / "summary.json", json.dumps(summary, indent=1))
    drawn = page.draw(content)
    (out / "figures").mkdir(exist_ok=True)
    saved = {name: figures.save(figure, out / "figures", name) for name, figure in drawn.items()}
    write_text(out / "report.html", page.render(content, drawn))
    names = ("report.html", "sweep.yaml", "leaderboard.csv", "summary.json", "treatments.parquet")
    return Written(
        headline=page.headline(content),
        summary=summary,
        candidates=_by_candidate(content, predictions, out / "figures", saved),
        files=[out / name for name in names],
        finished=content.best is not None,
    )


def _content(
    study: Mapping[str, Any],
    sweep: Mapping[str, Any],
    results: list[Result],
    predictions: pd.DataFrame,
    history: pd.DataFrame,
) -> Content:
    how = sweep["aggregate"]
    trained = [fold for fold, excluded in study["folds"].items() if excluded is None]
    columns = [CANDIDATE, FOLD, "status", "epochs", "seconds"]
    trials = pd.DataFrame([dataclasses.asdict(result) for result in results], columns=columns)
    painted = sweep["screen"]["name"] == "synthetic"
    return Content(
        study=study["study"],
        seed=study["seed"],
        command=study["command"],
        leaderboard=metrics.leaderboard(predictions, trials, study["candidates"], len(trained), how),
        treatments=metrics.treatments(predictions, how) if len(predictions) else pd.DataFrame(columns=[CANDIDATE]),
        history=history,
        labels=study["labels"],
        channels=study["channels"],
        how=how,
        tiles=_example_tiles(study, predictions),
        excluded={fold: excluded for fold, excluded in study["folds"].items() if excluded is not None},
        failures=[
            Failure(result.candidate, result.fold, result.status, result.attempts, result.error or "")
            for result in results
            if result.status != "finished"
        ],
        warnings=study["warnings"],
        notes=["The images of this screen are painted, not photographed: it shows the software, not biology."]
        if painted
        else [],
        versions=study["versions"],
        recipes=study["candidates"],
    )


def _history(book: Ledger, results: list[Result]) -> pd.DataFrame:
    """The histories of finished trials under each other, with what they belong to."""
    tables = [
        book.load(result).history.assign(  # type: ignore[union-attr]
            candidate=result.candidate,
            fold=result.fold,
            backbone=result.recipe["backbone"],
            weights=result.recipe["weights"],
        )
        for result in results
        if result.status == "finished"
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _example_tiles(study: Mapping[str, Any], predictions: pd.DataFrame) -> dict[str, list[NDArray[np.uint8]]]:
    """Tiles of each label, spread over its treatments; none where the tile store is not at hand."""
    store = Path(study["tile_store"])
    sizes = sorted({recipe["image_size"] for recipe in study["candidates"].values()})
    file = store / f"tiles-{sizes[-1]}.npy"
    if not file.exists() or predictions.empty:
        return {}
    tiles = np.load(file, mmap_mode="r", allow_pickle=False)
    rows = pd.read_parquet(store / "tiles.parquet")
    known = predictions[[*TILE_KEY, LABEL]].drop_duplicates(TILE_KEY).merge(rows, on=TILE_KEY, validate="one_to_one")
    examples = {}
    for label, mine in known.sort_values([*FIELD_KEY, "Metadata_Tile"]).groupby(LABEL):
        spread = np.unique(np.linspace(0, len(mine) - 1, _EXAMPLES).astype(int))
        examples[str(label)] = [tiles[row] for row in mine["row"].iloc[spread]]
    return examples


def _summary(content: Content, results: list[Result]) -> dict[str, Any]:
    """The headline numbers, for scripts."""
    best = content.best
    counts = pd.Series([result.status for result in results], dtype=object).value_counts()
    return {
        "study": content.study,
        "headline": page.headline(content),
        "best": None if best is None else _plain(best),
        "chosen_by": page.chosen(content),
        "trials": {str(status): int(count) for status, count in counts.items()},
        "folds_excluded": dict(content.excluded),
        "warnings": list(content.warnings),
        "versions": dict(content.versions),
    }


def _by_candidate(
    content: Content, predictions: pd.DataFrame, folder: Path, saved: Mapping[str, tuple[Path, Path]]
) -> dict[str, tuple[dict[str, float], pd.DataFrame, list[Path]]]:
    """What belongs to each candidate alone: scores, predictions, its curves and its confusion matrix."""
    parts = {}
    for row in content.leaderboard.to_dict("records"):
        candidate = row[CANDIDATE]
        if not row["n"]:
            continue
        numbers = {name: float(row[name]) for name in (*metrics.SCORES, "folds_finished", "folds_failed", "seconds")}
        confusion = f"confusion-{candidate}"
        if confusion not in saved:
            counts = metrics.confusion(content.treatments_of(candidate), content.labels)
            saved = {**saved, confusion: figures.save(figures.confusion(counts), folder, confusion)}
        curves: Figure = figures.accuracy_over_epochs(content.history[content.history[CANDIDATE] == candidate])
        _, curves_png = figures.save(curves, folder, f"accuracy_over_epochs-{candidate}")
        mine = predictions[predictions[CANDIDATE] == candidate]
        parts[candidate] = numbers, mine, [saved[confusion][1], curves_png]
    return parts


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Values that JSON knows; what is no number becomes null."""
    return {
        name: None
        if isinstance(value, float) and not np.isfinite(value)
        else getattr(value, "item", lambda v=value: v)()
        for name, value in row.items()
    }


if __name__ == "__main__":
    sys.exit(main())
