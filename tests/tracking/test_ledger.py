"""The ledger: trials whole or not at all, and no two sweeps in one folder."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from moa_ray import ledger, spec
from moa_ray.ledger import Ledger, Proposal, Result
from moa_ray.recipe import Recipe
from moa_ray.spec import Sweep

STUDY = {"tiles": "t", "labels": ["A", "B"], "weights": {}}


def sweep(tmp_path: Path, *overrides: str) -> Sweep:
    plain = {
        "study": "test",
        "out": str(tmp_path / "out"),
        "screen": {"name": "bbbc021", "root": str(tmp_path)},
        "recipe": {"backbone": "SmallCNN", "weights": "random"},
        "search": {"space": {"learning_rate": [0.1, 0.01]}},
    }
    return spec.check(plain, "test.yaml", overrides)


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    book = Ledger(tmp_path / "out")
    book.open(sweep(tmp_path), STUDY)
    return book


def result(candidate: str = "c", fold: str = "compound=a", **more: object) -> Result:
    tables = {"history": pd.DataFrame({"epoch": [1]}), "predictions": pd.DataFrame({"prob_A": [0.5]})}
    return Result(candidate, fold, **{"status": "finished", "recipe": {"epochs": 1}, **tables, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fold",
    ["compound=a", "compound=mevinolin/lovastatin", "compound=50 % ../x", "compound=µ-β", "compound=" + "x" * 400],
)
def test_result_is_read_back_as_it_was_written(book: Ledger, fold: str) -> None:
    written = result(fold=fold, error="why", attempts=2, seconds=1.5)
    book.write(written)
    (read,) = book.results()
    assert read == dataclasses.replace(written, history=None, predictions=None)
    loaded = book.load(read)
    assert loaded.predictions is not None
    pd.testing.assert_frame_equal(loaded.predictions, written.predictions)
    assert book.folder("c", fold).parent.parent == book.root


def test_one_table_of_all_is_that_of_each_under_the_other(book: Ledger) -> None:
    def history(watched: list[float | None]) -> pd.DataFrame:
        return pd.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.25], "validation_loss": watched, "name": ["µ", "b"]})

    for fold, watched in {"a": [None, None], "b": [0.25, 0.5]}.items():
        book.write(result(fold=fold, history=history(watched), predictions=None))
    book.write(result(fold="c", status="crashed", history=None, predictions=None))
    results = list(book.results())
    plain = [book.load(one).history for one in results[:2]]
    named = [
        table.assign(candidate=one.candidate, fold=one.fold).astype({"validation_loss": float})
        for one, table in zip(results, plain, strict=False)
        if table is not None
    ]
    pd.testing.assert_frame_equal(book.table("history", results), pd.concat(named, ignore_index=True))
    assert book.table("predictions", results).empty
    assert book.table("history", []).empty


def test_folds_of_long_names_stay_apart(book: Ledger) -> None:
    for last in "ab":
        book.write(result(fold="compound=" + "x" * 400 + last))
    assert len(list(book.results())) == 2


def test_kill_while_writing_leaves_no_trial(book: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        book.write(result())
    monkeypatch.undo()
    assert list(book.results()) == []
    assert list(book.root.glob(".writing-*"))
    book.open(sweep(tmp_path), STUDY)
    assert not list(book.root.glob(".writing-*"))


def test_unsettled_trial_is_replaced_and_settled_ones_are_known(book: Ledger) -> None:
    book.write(result(status="crashed", history=None, predictions=None))
    book.write(result(fold="compound=b", status="diverged"))
    assert set(book.settled()) == {("c", "compound=b")}
    book.write(result())
    assert set(book.settled()) == {("c", "compound=a"), ("c", "compound=b")}
    assert [one.status for one in book.results()] == ["finished", "diverged"]


@pytest.mark.parametrize("override", ["seed=1", "images.rows=3", "folds.hold_out=week", "aggregate=mean"])
def test_other_settings_are_refused_and_named(book: Ledger, tmp_path: Path, override: str) -> None:
    with pytest.raises(ValueError, match=r"--fresh") as error:
        book.open(sweep(tmp_path, override), STUDY)
    assert override.split("=")[0] in str(error.value)


@pytest.mark.parametrize(
    "override",
    [
        *("resources.gpus=1", "tracking.uri=sqlite:///x.db", "reference=kensert2019", "resources.retries=5"),
        *("conformal.alphas=[0.3]", "conformal=null"),
    ],
)
def test_where_and_how_fast_may_change(book: Ledger, tmp_path: Path, override: str) -> None:
    book.open(sweep(tmp_path, override), STUDY)


def test_grid_may_grow_but_what_was_run_must_stay(book: Ledger, tmp_path: Path) -> None:
    book.write(result(candidate=sweep(tmp_path).recipes[0].candidate))
    book.open(sweep(tmp_path, "search.space.learning_rate=[0.1, 0.01, 0.001]"), {**STUDY, "weights": {"w.h5": "1"}})
    with pytest.raises(ValueError, match=r"search\.space\.learning_rate"):
        book.open(sweep(tmp_path, "search.space.learning_rate=[0.01]"), STUDY)


SEARCH = ("search.mode=optuna", "search.space={learning_rate: {low: 0.01, high: 0.1}}")


def test_candidates_of_a_search_are_read_back_in_their_order(book: Ledger) -> None:
    made = [Proposal(number, Recipe(learning_rate=0.1 - 0.01 * number), {"x": [number]}) for number in range(3)]
    for proposal in reversed(made):
        book.propose(proposal)
    assert book.proposals() == made
    assert list(book.results()) == []


def test_search_may_go_on_longer_but_not_in_another_space(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "out")
    book.open(sweep(tmp_path, *SEARCH), STUDY)
    book.open(sweep(tmp_path, *SEARCH, "search.candidates=100", "search.confirm=2"), STUDY)
    with pytest.raises(ValueError, match=r"search\.space\.learning_rate\.high"):
        book.open(sweep(tmp_path, *SEARCH, "search.space.learning_rate.high=0.2"), STUDY)
    with pytest.raises(ValueError, match=r"validation\.share"):
        book.open(sweep(tmp_path), STUDY)
    with pytest.raises(ValueError, match=r"folds\.search"):
        book.open(sweep(tmp_path, *SEARCH, "folds.search=all"), STUDY)


def test_changed_data_or_weights_are_refused(book: Ledger, tmp_path: Path) -> None:
    book.open(sweep(tmp_path), {**STUDY, "weights": {"w.h5": "1"}})
    for changed in ({"tiles": "other"}, {"labels": ["A"]}, {"weights": {"w.h5": "2"}}):
        with pytest.raises(ValueError, match=next(iter(changed))):
            book.open(sweep(tmp_path), {**STUDY, **changed})


def test_identity_of_a_study_stays_over_starts(book: Ledger, tmp_path: Path) -> None:
    before = book.study()["id"]
    book.open(sweep(tmp_path), STUDY)
    assert book.study()["id"] == before


def test_nothing_is_looked_for_in_what_is_being_written(tmp_path: Path) -> None:
    book = Ledger(tmp_path)
    unfinished = book.root / ".writing-1" / "fold" / "result.json"
    unfinished.parent.mkdir(parents=True)
    unfinished.write_text("{")
    assert list(book.results()) == []


def test_fresh_takes_the_first_free_folder(tmp_path: Path) -> None:
    (tmp_path / "out-2").mkdir()
    assert ledger.fresh(tmp_path / "out") == tmp_path / "out-3"


def test_text_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    ledger.write_text(path, "before")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        ledger.write_text(path, "after")
    assert path.read_text() == "before"


def test_samples_are_kept_beside_the_predictions(book: Ledger) -> None:
    samples = pd.DataFrame({"method": "laplace", "sample": [0, 1], "prob_A": [0.25, 0.75]})
    book.write(result(samples=samples))
    book.write(result(fold="compound=b"))
    results = list(book.results())
    pd.testing.assert_frame_equal(book.load(results[0]).samples, samples)
    assert book.load(results[1]).samples is None
    assert list(book.table("samples", results)["fold"]) == ["compound=a"] * 2


@pytest.mark.parametrize(
    ("mode", "before", "now", "goes_on"),
    [
        ("grid", [1, 2], [2, 1, 3], True),
        ("grid", [1, 2], [1], False),
        ("grid", None, [1], False),
        ("optuna", [1, 2], [1, 2, 3], True),
        ("optuna", [1, 2], [2, 1, 3], False),
        ("optuna", [1, 2], [1], False),
        ("optuna", None, [1], False),
    ],
)
def test_ensemble_may_grow(tmp_path: Path, mode: str, before: list[int] | None, now: list[int], goes_on: bool) -> None:
    search = f"search={{mode: {mode}, space: {{learning_rate: [0.1, 0.01]}}}}"
    first, then = (sweep(tmp_path, search, f"seeds={'null' if seeds is None else seeds}") for seeds in (before, now))
    book = Ledger(tmp_path / "out")
    book.open(first, STUDY)
    for number, recipe in enumerate(first.recipes):
        book.write(result(recipe.candidate, recipe=recipe.as_dict()))
        book.propose(Proposal(number, recipe))
    if goes_on:
        book.open(then, STUDY)
    else:
        with pytest.raises(ValueError, match=r"these differ: .*seeds"):
            book.open(then, STUDY)


def test_other_number_of_samples_is_another_sweep(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "out")
    dropout = "recipe.dropout=0.5"
    book.open(sweep(tmp_path, dropout), STUDY)
    with pytest.raises(ValueError, match=r"these differ: predict\.mc_dropout"):
        book.open(sweep(tmp_path, dropout, "predict.mc_dropout=30"), STUDY)
