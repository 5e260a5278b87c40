"""The report's page: honest, self-contained, and safe whatever a compound is called."""

import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moa_ray import calibration, comparison, figures, intervals, metrics, page, published, selection
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
    board = metrics.leaderboard(predictions, table, recipes, n_folds=4)
    treatments = metrics.treatments(predictions) if rows else pd.DataFrame(columns=["candidate"])
    return page.Content(
        study="a study",
        seed=7,
        command="python -m moa_ray.sweep a.yaml",
        leaderboard=comparison.against_best(board, treatments),
        treatments=treatments,
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
    bounds = {"wilson_low": 0.34, "wilson_high": 1.0, "compounds": 2, "compound_low": 0.5, "compound_high": 1.0}
    search = page.Search(
        states=states,
        confirm=["f2", "f3"],
        scores={"k": 2, "n": 2, "treatment_accuracy": 1.0, "n_folds": 2, **bounds},
        over_all={"k": 3, "n": 4, "treatment_accuracy": 0.75, **bounds},
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
    low_too, high_too = (
        f"{100 * share:.1f} %" for share in intervals.accuracy_interval([0, 1, 1, 1], [EVIL, "c1", "c2", "c3"])
    )
    assert f"95 % Wilson interval {low} to {high}; 95 % bootstrap over 4 compounds {low_too} to {high_too})" in line
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
    assert "Over all folds 3 of 4, 75.0 % (95 % Wilson interval 34.0 % to" in text
    assert "): includes the folds used for choosing, optimistic" in text
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
        "Example images",
        "Folds left out",
        "Failed trials",
        "Warnings about the data",
        "How it was made",
    ]
    assert all(
        word in visible(html) for word in ("python -m moa_ray.sweep a.yaml", "keras 3.15", "Seed 7", "red: Actin")
    )


def test_every_figure_drawn_is_on_the_page_as_it_was_saved(tmp_path: Path) -> None:
    made = content()
    drawn = page.draw(made)
    assert set(drawn) == {
        *("leaderboard", "accuracy_over_epochs", "confusion-A-0", "wrong_treatments", "example_tiles"),
    }
    for name, figure in drawn.items():
        figures.save(figure, tmp_path, name)
    html = page.render(made, drawn, tmp_path)
    assert html.count("<img src=") == len(drawn)
    shown = {base64.b64decode(image) for image in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html)}
    assert shown == {path.read_bytes() for path in tmp_path.glob("*.svg") if path.stem != "example_tiles"}


def test_a_confusion_matrix_of_the_best_candidate_of_each_backbone() -> None:
    made = content(candidates=4)
    board = made.leaderboard.assign(backbone=["A", "B", "A", "B"])
    drawn = page.draw(dataclasses.replace(made, leaderboard=board))
    best = list(board["candidate"][:2])
    assert [name for name in drawn if name.startswith("confusion")] == [f"confusion-{name}" for name in best]


def test_treatments_that_cannot_be_scored_are_named_with_the_reason() -> None:
    lost = pd.DataFrame([("taxol", 0.3, "X", "week=1", f"no field left {EVIL}")])
    lost = lost.set_axis([COMPOUND, CONCENTRATION, LABEL, "fold", "reason"], axis=1)
    made = dataclasses.replace(content(), n_treatments=5, unscored=lost)
    html = page.render(made)
    assert "4 of 5 treatments can be scored" in page.headline(made)
    assert "4 of 5 treatments can be scored" in visible(html)
    assert page.unscored_sheet(made).rows == [["taxol", "0.3", "X", f"no field left {EVIL}"]]
    assert EVIL not in html
    assert "taxol 0.3 X no field left" in visible(html)
    assert "can be scored" not in visible(page.render(content()))


def laid_beside() -> page.Content:
    """The same beside the paper: a backbone that it has, one right treatment less, and one that it has not."""
    paper = published.paper_treatments()
    said = paper[LABEL].where(paper[COMPOUND] != "taxol", "Epithelial")
    treatments = paper.assign(predicted=said).iloc[1:]
    compared = [published.beside(treatments, "R-1", "ResNet50"), published.beside(treatments, "M-1", "MobileNet")]
    return dataclasses.replace(content(), reference="kensert2019", compared=compared)


def test_a_candidate_stands_beside_the_published_one() -> None:
    made = laid_beside()
    text = visible(page.render(made))
    assert "Side by side: Kensert et al. 2019" in text
    sheet = page.beside_sheet(made.compared)
    one, other = (dict(zip(sheet.headings, row, strict=True)) for row in sheet.rows)
    assert one["published"] == "100 of 103, 97 %"
    assert [one[name] for name in ("compared", *published.OUTCOMES)] == ["102", "96", "3", "3", "0"]
    assert (one["exact McNemar p"], one["treatments only published"]) == ("1.000", "1")
    assert (other["published"], other["treatments only here"]) == ("none", "102")
    assert len(page.differing_sheet(made.compared).rows) == 6
    assert "side_by_side" in page.draw(made)
    assert "Microsnoop 2023" in text
    by_week = made.treatments.assign(fold="compound,week=a")
    for treatments, words in ((by_week, "compound, week"), (by_week.drop(columns="fold"), "not known")):
        html = page.render(dataclasses.replace(made, treatments=treatments))
        assert f"Held out here: {words}." in visible(html)
    assert "Side by side" not in visible(page.render(content()))


def test_a_leaderboard_says_who_cannot_be_told_from_the_best() -> None:
    made = content(candidates=3, finished=2)
    sheet = page.board_sheet(made)
    shown = [dict(zip(sheet.headings, row, strict=True)) for row in sheet.rows]
    assert [row["against the best"] for row in shown] == ["best", "not distinguishable", "not distinguishable"]
    assert [row["fewer right"] for row in shown] == ["–", "0 of 4", "0 of 2"]
    assert [row["permutation p"] for row in shown] == ["–", "1.000", "1.000"]
    assert "it cannot go below 0.25 here" in visible(page.render(made))  # 2 candidates, 4 compounds
    assert "against the best" not in page.board_sheet(content(candidates=1)).headings


def test_calibration_stands_before_and_after_a_temperature() -> None:
    made = content()
    found = calibration.calibrate(made.judged)
    made = dataclasses.replace(made, calibration=found)
    sheet = page.calibration_sheet(found)
    assert sheet.headings == ["", "as predicted", "with a temperature"]
    assert [f"{found.before.brier:.3f}", f"{found.after.brier:.3f}"] in [row[1:] for row in sheet.rows]
    text = visible(page.render(made))
    assert "Is A-0 right as often as it says?" in text
    assert page.calibration_words(found) in text
    assert "calibration" in page.draw(made)


def test_one_compound_alone_has_no_other_to_fit_a_temperature_on() -> None:
    found = calibration.calibrate(content().judged.iloc[1:2])
    assert page.calibration_sheet(found).headings == ["", "as predicted"]
    assert "There is no other compound" in page.calibration_words(found)


def test_what_is_not_shown_of_the_fields_is_said() -> None:
    made = dataclasses.replace(content(), tiles={}, no_fields="No example fields: not at hand.")
    assert "No example fields: not at hand." in visible(page.render(made))


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
