"""Evidence as small as a report can stand on, and what is read off a page or a figure."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from moa_ray.common.schema import BACKBONE, CANDIDATE, COMPOUND, CONCENTRATION, FIELD, FOLD, LABEL, PLATE, TILE, WELL
from moa_ray.config.search import OptunaSettings
from moa_ray.reporting.evidence import Evidence
from moa_ray.reporting.example_tiles import ExampleTiles
from moa_ray.reporting.records import Failure, SearchRecord
from moa_ray.statistics import aggregation, comparison
from moa_ray.statistics.leaderboard import leaderboard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVIL = "<script>alert('x')</script>"
LABELS = ["X", "Y & Z"]


def evidence(candidates: int = 2, finished: int = 4, wrong: int = 1) -> Evidence:
    """Candidates on four folds of one treatment each; the last one finished only some, each got some wrong."""
    recipes = {f"A-{i}": {"backbone": "A", "weights": "random", "learning_rate": 0.1**i} for i in range(candidates)}
    rows, trials = [], []
    for candidate in recipes:
        last = candidate == f"A-{candidates - 1}"
        for number in range(4):
            done = not last or number < finished
            trials.append((candidate, f"f{number}", "finished" if done else "crashed", 2, 61.0))
            if done:
                share = 0.2 if number < wrong else 0.9
                compound = EVIL if number == 0 else f"c{number}"
                true = number % 2
                place = ("P", f"W{number}", "1", "1", compound, 0.3, LABELS[true], f"f{number}", candidate, "A")
                rows.append((*place, *((share, 1 - share) if true == 0 else (1 - share, share))))
    names = [PLATE, WELL, FIELD, TILE, COMPOUND, CONCENTRATION, LABEL, FOLD, CANDIDATE, BACKBONE]
    predictions = pd.DataFrame(rows, columns=[*names, *(f"prob_{label}" for label in LABELS)])
    table = pd.DataFrame(trials, columns=[CANDIDATE, FOLD, "status", "epochs", "seconds"])
    history = table.loc[table["status"] == "finished", [CANDIDATE, FOLD]].assign(
        backbone="A", weights="random", epoch=1, accuracy=0.5, validation_accuracy=None
    )
    treatments = aggregation.treatments(predictions) if rows else pd.DataFrame(columns=[CANDIDATE])
    return Evidence(
        study="a study",
        seed=7,
        command="python -m moa_ray.sweep a.yaml",
        leaderboard=comparison.against_best(leaderboard(predictions, table, recipes, n_folds=4), treatments),
        treatments=treatments,
        history=history,
        labels=LABELS,
        channels=("Actin", None, None),
        tiles=black_tiles(),
        excluded={f"compound={EVIL}": "no training field is left"},
        failures=[Failure("A-1", EVIL, "crashed", 3, f"boom {EVIL}\nTraceback")],
        warnings=[f"1 plate has no control wells: {EVIL}"],
        versions={"keras": "3.15"},
        recipes=recipes,
    )


def black_tiles() -> ExampleTiles:
    """One black tile of each label."""
    rows = pd.DataFrame({LABEL: LABELS, COMPOUND: ["c", "d"], CONCENTRATION: 0.3, "row": [0, 1]})
    return ExampleTiles(np.zeros((2, 8, 8, 3), np.uint8), rows)


def searched() -> Evidence:
    """The same, where the last two folds confirm."""
    states = pd.DataFrame({"f0": ["finished", "stopped"], "f1": "finished", "f2": ["finished", None], "f3": None})
    bounds = {"wilson_low": 0.34, "wilson_high": 1.0, "compounds": 2, "compound_low": 0.5, "compound_high": 1.0}
    search = SearchRecord(
        settings=OptunaSettings(mode="optuna", space={"learning_rate": [0.1, 0.01]}),
        states=states,
        confirm_folds=["f2", "f3"],
        scores={"k": 2, "n": 2, "treatment_accuracy": 1.0, "n_folds": 2, **bounds},
        over_all={"k": 3, "n": 4, "treatment_accuracy": 0.75, **bounds},
        saved=0.25,
    )
    grid = evidence()
    return dataclasses.replace(grid, search=search, leaderboard=grid.leaderboard.assign(stopped_why="not the best"))


def visible(html: str) -> str:
    """The text of a page."""
    parts: list[str] = []
    parser = HTMLParser()
    parser.handle_data = parts.append  # type: ignore[method-assign]
    parser.feed(html)
    return re.sub(r"\s+", " ", " ".join(parts))


def words_of(out: Path) -> str:
    """The page of a report, tags included, with one space between words."""
    return " ".join((out / "report.html").read_text(encoding="utf-8").split())


def texts(figure: "Figure") -> list[str]:
    """Everything written in a figure, ticks included."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
