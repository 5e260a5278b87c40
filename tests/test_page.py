"""The report's page: honest, self-contained, and safe whatever a compound is called."""

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from moa_ray import metrics, page, selection
from moa_ray.tables import COMPOUND, CONCENTRATION, FIELD, LABEL, PLATE, TILE, WELL

EVIL = "<script>alert('x')</script>"
LABELS = ["X", "Y & Z"]


def content(candidates: int = 2, finished: int = 4, wrong: int = 1) -> page.Content:
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
    names = [PLATE, WELL, FIELD, TILE, COMPOUND, CONCENTRATION, LABEL, "fold", "candidate", "backbone"]
    predictions = pd.DataFrame(rows, columns=[*names, *(f"prob_{label}" for label in LABELS)])
    table = pd.DataFrame(trials, columns=["candidate", "fold", "status", "epochs", "seconds"])
    history = table.loc[table["status"] == "finished", ["candidate", "fold"]].assign(
        backbone="A", weights="random", epoch=1, accuracy=0.5, validation_accuracy=None
    )
    return page.Content(
        study="a study",
        seed=7,
        command="python -m moa_ray.sweep a.yaml",
        leaderboard=metrics.leaderboard(predictions, table, recipes, n_folds=4),
        treatments=metrics.treatments(predictions) if rows else pd.DataFrame(),
        history=history,
        labels=LABELS,
        channels=("Actin", None, None),
        tiles={label: [np.zeros((8, 8, 3), np.uint8)] for label in LABELS},
        excluded={f"compound={EVIL}": "no training field is left"},
        failures=[page.Failure("A-1", EVIL, "crashed", 3, f"boom {EVIL}\nTraceback")],
        warnings=[f"1 plate has no control wells: {EVIL}"],
        versions={"keras": "3.15"},
        recipes=recipes,
    )


def searched() -> page.Content:
    """The same, where the last two folds confirm."""
    made = content()
    states = pd.DataFrame({"f0": ["finished", "stopped"], "f1": "finished", "f2": ["finished", None], "f3": None})
    search = page.Search(
        states=states,
        confirm=["f2", "f3"],
        scores={"k": 2, "n": 2, "treatment_accuracy": 1.0, "wilson_low": 0.34, "wilson_high": 1.0, "n_folds": 2},
        over_all={"k": 3, "n": 4, "treatment_accuracy": 0.75},
        saved=0.25,
        objective="treatment log loss",
        rule="Every candidate gets the same first 2 folds.",
    )
    return dataclasses.replace(made, search=search, leaderboard=made.leaderboard.assign(stopped_why="not the best"))


def visible(html: str) -> str:
    """The text of a page."""
    parts: list[str] = []
    parser = HTMLParser()
    parser.handle_data = parts.append  # type: ignore[method-assign]
    parser.feed(html)
    return re.sub(r"\s+", " ", " ".join(parts))


@pytest.fixture(scope="module")
def html() -> str:
    return page.render(content())


def test_the_headline_carries_all_that_it_has_to_be_judged_by() -> None:
    line = page.headline(content())
    low, high = (f"{100 * share:.1f} %" for share in metrics.wilson(3, 4))
    assert "3 of 4 treatments right, 75.0 %" in line
    assert f"95 % Wilson interval {low} to {high}" in line
    assert "best of 2 recipes judged on the same folds: optimistic, not corrected" in line
    assert "majority class: 2 of 4, 50.0 %" in line


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (content(candidates=1), "one fixed recipe, nothing was chosen"),
        (content(candidates=2, finished=2), "the only one of 2 recipes that finished all folds"),
        (content(candidates=3, finished=2), "best of 2 recipes judged on the same folds (1 more did not finish)"),
        (
            dataclasses.replace(content(), corrected=selection.Corrected(0.612, 0.4, 0.8, 1000)),
            "optimistic, corrected by BBC-CV 61.2 % (40.0 % to 80.0 %)",
        ),
        (searched(), "the best of 2 candidates by treatment log loss on the search folds; judged on 2 folds that no"),
    ],
)
def test_what_chose_the_headline_is_said(made: page.Content, says: str) -> None:
    assert says in page.headline(made)
    assert says in visible(page.render(made))


def test_a_search_is_judged_on_the_folds_that_it_did_not_see() -> None:
    text = visible(page.render(searched()))
    assert "2 of 2 treatments right" in text
    assert "Over all folds 3 of 4, 75.0 %: includes the folds used for choosing, optimistic" in text
    assert "the majority class: 1 of 2" in text
    assert "25 % of the epochs" in text
    assert set(page.draw(searched())) >= {"race", "leaderboard"}


def test_an_unfinished_result_says_so() -> None:
    made = content(candidates=1, finished=2)
    assert page.headline(made).startswith("UNFINISHED (2 of 4 folds): 1 of 2")
    assert "Not finished: 2 of 4 folds." in visible(page.render(made))


def test_the_page_needs_no_network_and_no_script(html: str) -> None:
    assert not re.search(r"<script|<link|<iframe|@import|url\(", html)
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)


def test_names_are_escaped(html: str) -> None:
    assert EVIL not in html
    assert visible(html).count(EVIL) >= 5  # excluded fold, failed trial (thrice), warning, wrong treatment


def test_the_page_has_every_section(html: str) -> None:
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", html)
    assert headings == [
        "Leaderboard",
        "Accuracy over epochs",
        "Confusion matrices",
        "Treatments that went wrong",
        "Example tiles",
        "Folds left out",
        "Failed trials",
        "Warnings about the data",
        "How it was made",
    ]
    assert all(
        word in visible(html) for word in ("python -m moa_ray.sweep a.yaml", "keras 3.15", "Seed 7", "red: Actin")
    )


def test_every_figure_drawn_is_on_the_page() -> None:
    made = content()
    drawn = page.draw(made)
    assert set(drawn) == {
        *("leaderboard", "accuracy_over_epochs", "confusion-A-0", "confusion-A-1"),
        *("wrong_treatments", "example_tiles"),
    }
    assert page.render(made, drawn).count("<img src=") == len(drawn)


def test_at_most_the_best_six_confusion_matrices() -> None:
    assert sum(name.startswith("confusion") for name in page.draw(content(candidates=8))) == page.MOST_CONFUSIONS


def test_mistakes_are_listed_with_their_probabilities() -> None:
    sheet = page.mistakes_sheet(content(candidates=2, wrong=1))
    assert sheet.rows == [[EVIL, "0.3", "X", "0.200", "Y & Z", "0.800", "1", "1", "2 of 2"]]


def test_no_mistakes_is_said() -> None:
    assert "got every treatment right" in visible(page.render(content(wrong=0)))


def test_a_sweep_without_predictions_still_has_a_page() -> None:
    made = dataclasses.replace(content(candidates=1, finished=0), tiles={})
    assert page.headline(made) == "No prediction: no trial finished."
    text = visible(page.render(made))
    assert "No trial finished" in text
    assert "boom" in text
    assert page.draw(made) == {}
