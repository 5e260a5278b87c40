"""The ledger: trials whole or not at all, and no two sweeps in one folder."""

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from moa_ray.common.errors import InputError
from moa_ray.common.schema import FOLD, LABEL, OPEN_SET
from moa_ray.config import sweep_file
from moa_ray.config.recipe import Recipe, linear_probe_of
from moa_ray.config.sweep_file import Sweep
from moa_ray.tracking.ledger import Ledger, fresh
from moa_ray.tracking.results import Proposal, Result, TrialKind

STUDY = {"tiles": "t", "labels": ["A", "B"], "weights": {}}


def sweep(tmp_path: Path, *overrides: str) -> Sweep:
    plain = {
        "study": "test",
        "out": str(tmp_path / "out"),
        "screen": {"name": "bbbc021", "root": str(tmp_path)},
        "recipe": {"backbone": "SmallCNN", "weights": "random"},
        "search": {"space": {"learning_rate": [0.1, 0.01]}},
    }
    return sweep_file.check(plain, "test.yaml", overrides)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "out")
    ledger.open(sweep(tmp_path), STUDY)
    return ledger


def result(candidate: str = "c", fold: str = "compound=a", **more: object) -> Result:
    tables = {
        "history": pd.DataFrame({"epoch": [1]}),
        "predictions": pd.DataFrame({OPEN_SET: [False], "prob_A": [0.5]}),
    }
    return Result(candidate, fold, **{"status": "finished", "recipe": {"epochs": 1}, **tables, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fold",
    ["compound=a", "compound=mevinolin/lovastatin", "compound=50 % ../x", "compound=µ-β", "compound=" + "x" * 400],
)
def test_result_is_read_back_as_it_was_written(ledger: Ledger, fold: str) -> None:
    written = result(fold=fold, error="why", attempts=2, seconds=1.5)
    ledger.write(written)
    (read,) = ledger.results()
    assert read == dataclasses.replace(written, history=None, predictions=None)
    loaded = ledger.load(read)
    assert loaded.predictions is not None
    pd.testing.assert_frame_equal(loaded.predictions, written.predictions)
    assert ledger.folder("c", fold).parent.parent == ledger.root


def test_one_table_of_all_is_that_of_each_under_the_other(ledger: Ledger) -> None:
    def history(watched: list[float | None]) -> pd.DataFrame:
        return pd.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.25], "validation_loss": watched, "name": ["µ", "b"]})

    for fold, watched in {"a": [None, None], "b": [0.25, 0.5]}.items():
        ledger.write(result(fold=fold, history=history(watched), predictions=None))
    ledger.write(result(fold="c", status="crashed", history=None, predictions=None))
    results = list(ledger.results())
    plain = [ledger.load(trial).history for trial in results[:2]]
    named = [
        table.assign(candidate=trial.candidate, fold=trial.fold).astype({"validation_loss": float})
        for trial, table in zip(results, plain, strict=False)
        if table is not None
    ]
    pd.testing.assert_frame_equal(ledger.table("history", results), pd.concat(named, ignore_index=True))
    assert ledger.table("predictions", results).empty
    assert ledger.table("history", []).empty


def test_folds_of_long_names_stay_apart(ledger: Ledger) -> None:
    for last in "ab":
        ledger.write(result(fold="compound=" + "x" * 400 + last))
    assert len(list(ledger.results())) == 2


def test_kill_while_writing_leaves_no_trial(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        ledger.write(result())
    monkeypatch.undo()
    assert list(ledger.results()) == []
    assert list(ledger.root.glob(".writing-*"))
    ledger.open(sweep(tmp_path), STUDY)
    assert not list(ledger.root.glob(".writing-*"))


def test_unsettled_trial_is_replaced_and_settled_ones_are_known(ledger: Ledger) -> None:
    ledger.write(result(status="crashed", history=None, predictions=None))
    ledger.write(result(fold="compound=b", status="diverged"))
    assert set(ledger.settled()) == {("c", "compound=b")}
    ledger.write(result())
    assert set(ledger.settled()) == {("c", "compound=a"), ("c", "compound=b")}
    assert [trial.status for trial in ledger.results()] == ["finished", "diverged"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "is missing"), (b"", "holds 0 bytes"), (b"PAR1 and no more", "cut short"), (bytes(400), "damaged")],
)
def test_finished_trial_whose_predictions_are_gone_is_to_be_run_again(
    ledger: Ledger, content: bytes | None, words: str
) -> None:
    ledger.write(result())
    ledger.write(result(fold="compound=b"))
    file = ledger.folder("c", "compound=a") / "predictions.parquet"
    file.unlink() if content is None else file.write_bytes(content)
    lost, whole = ledger.results()
    assert (lost.status, whole.status) == ("lost", "finished")
    assert "predictions.parquet" in str(lost.error)
    assert words in str(lost.error)
    assert set(ledger.settled()) == {("c", "compound=b")}
    assert len(ledger.table("predictions", [lost, whole])) == 1
    ledger.write(result())
    assert len(ledger.settled()) == 2


def test_predictions_whose_pages_are_damaged_are_named_with_what_to_do(ledger: Ledger) -> None:
    ledger.write(result(predictions=pd.DataFrame({OPEN_SET: [False] * 999, "prob_A": range(999)})))
    (trial,) = ledger.results()
    file = ledger.folder("c", "compound=a") / "predictions.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:4] + bytes(len(content) - 600) + content[-596:])
    with pytest.raises(InputError, match=r"predictions\.parquet: cannot be read: .* runs this trial again"):
        ledger.table("predictions", [trial])


@pytest.mark.parametrize("override", ["seed=1", "images.rows=3", "folds.hold_out=week", "aggregate=mean"])
def test_other_settings_are_refused_and_named(ledger: Ledger, tmp_path: Path, override: str) -> None:
    with pytest.raises(InputError, match=r"--fresh") as error:
        ledger.open(sweep(tmp_path, override), STUDY)
    assert override.split("=")[0] in str(error.value)


@pytest.mark.parametrize(
    "override",
    [
        *("resources.gpus=1", "tracking.uri=sqlite:///x.db", "reference=kensert2019", "resources.retries=5"),
        *("conformal.alphas=[0.3]", "conformal=null"),
    ],
)
def test_where_and_how_fast_may_change(ledger: Ledger, tmp_path: Path, override: str) -> None:
    ledger.open(sweep(tmp_path, override), STUDY)


def test_grid_may_grow_but_what_was_run_must_stay(ledger: Ledger, tmp_path: Path) -> None:
    ledger.write(result(candidate=sweep(tmp_path).grid_recipes[0].candidate))
    ledger.open(sweep(tmp_path, "search.space.learning_rate=[0.1, 0.01, 0.001]"), {**STUDY, "weights": {"w.h5": "1"}})
    with pytest.raises(InputError, match=r"search\.space\.learning_rate"):
        ledger.open(sweep(tmp_path, "search.space.learning_rate=[0.01]"), STUDY)


SEARCH = ("search.mode=optuna", "search.space={learning_rate: {low: 0.01, high: 0.1}}")


def test_candidates_of_a_search_are_read_back_in_their_order(ledger: Ledger) -> None:
    proposals = [Proposal(number, Recipe(learning_rate=0.1 - 0.01 * number), {"x": [number]}) for number in range(3)]
    for proposal in reversed(proposals):
        ledger.propose(proposal)
    assert ledger.proposals() == proposals
    assert list(ledger.results()) == []


def test_a_setting_that_did_not_exist_then_counts_as_its_default(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "out")
    ledger.open(sweep(tmp_path), STUDY)
    written = yaml.safe_load((tmp_path / "out" / "sweep.yaml").read_text())
    del written["images"]["normalise"]["min_control_fields"]
    (tmp_path / "out" / "sweep.yaml").write_text(yaml.safe_dump(written))
    with pytest.raises(InputError, match=r"these differ: images\.normalise\.min_control_fields"):
        ledger.open(sweep(tmp_path, "images.normalise.min_control_fields=5"), STUDY)
    ledger.open(sweep(tmp_path), STUDY)


def test_search_may_go_on_longer_but_not_in_another_space(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "out")
    ledger.open(sweep(tmp_path, *SEARCH), STUDY)
    ledger.open(sweep(tmp_path, *SEARCH, "search.candidates=100", "search.confirm=2"), STUDY)
    with pytest.raises(InputError, match=r"search\.space\.learning_rate\.high"):
        ledger.open(sweep(tmp_path, *SEARCH, "search.space.learning_rate.high=0.2"), STUDY)
    with pytest.raises(InputError, match=r"validation\.share"):
        ledger.open(sweep(tmp_path), STUDY)
    with pytest.raises(InputError, match=r"folds\.search"):
        ledger.open(sweep(tmp_path, *SEARCH, "folds.search=all"), STUDY)


def test_changed_data_or_weights_are_refused(ledger: Ledger, tmp_path: Path) -> None:
    ledger.open(sweep(tmp_path), {**STUDY, "weights": {"w.h5": "1"}})
    for changed in ({"tiles": "other"}, {"labels": ["A"]}, {"weights": {"w.h5": "2"}}):
        with pytest.raises(InputError, match=next(iter(changed))):
            ledger.open(sweep(tmp_path), {**STUDY, **changed})


def test_identity_of_a_study_stays_over_starts(ledger: Ledger, tmp_path: Path) -> None:
    before = ledger.study()["id"]
    ledger.open(sweep(tmp_path), STUDY)
    assert ledger.study()["id"] == before


def test_nothing_is_looked_for_in_what_is_being_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    unfinished = ledger.root / ".writing-1" / "fold" / "result.json"
    unfinished.parent.mkdir(parents=True)
    unfinished.write_text("{")
    assert list(ledger.results()) == []


def test_fresh_takes_the_first_free_folder(tmp_path: Path) -> None:
    (tmp_path / "out-2").mkdir()
    assert fresh(tmp_path / "out") == tmp_path / "out-3"


def test_samples_are_kept_beside_the_predictions(ledger: Ledger) -> None:
    samples = pd.DataFrame({"method": "laplace", "sample": [0, 1], "prob_A": [0.25, 0.75], OPEN_SET: False})
    ledger.write(result(samples=samples))
    ledger.write(result(fold="compound=b"))
    results = list(ledger.results())
    pd.testing.assert_frame_equal(ledger.load(results[0]).samples, samples)
    assert ledger.load(results[1]).samples is None
    assert list(ledger.table("samples", results)["fold"]) == ["compound=a"] * 2


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
    ledger = Ledger(tmp_path / "out")
    ledger.open(first, STUDY)
    for number, recipe in enumerate(first.grid_recipes):
        ledger.write(result(recipe.candidate, recipe=recipe.as_dict()))
        ledger.propose(Proposal(number, recipe))
    if goes_on:
        ledger.open(then, STUDY)
    else:
        with pytest.raises(InputError, match=r"these differ: .*seeds"):
            ledger.open(then, STUDY)


def test_other_number_of_samples_is_another_sweep(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "out")
    dropout = "recipe.dropout=0.5"
    ledger.open(sweep(tmp_path, dropout), STUDY)
    with pytest.raises(InputError, match=r"these differ: predict\.mc_dropout"):
        ledger.open(sweep(tmp_path, dropout, "predict.mc_dropout=30"), STUDY)


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        (Recipe(), TrialKind.CANDIDATE),
        (Recipe(seed=0), TrialKind.ENSEMBLE_MEMBER),
        (linear_probe_of(Recipe()), TrialKind.LINEAR_PROBE),
    ],
)
def test_trial_from_before_kinds_were_written_has_its_kind_by_its_recipe(
    ledger: Ledger, recipe: Recipe, kind: TrialKind
) -> None:
    ledger.write(result(recipe=recipe.as_dict()))
    path = ledger.folder("c", "compound=a") / "result.json"
    plain = json.loads(path.read_text())
    assert plain.pop("kind") == "candidate"
    path.write_text(json.dumps(plain))
    assert [trial.kind for trial in ledger.results()] == [kind]


@pytest.mark.parametrize("kind", TrialKind)
def test_kind_of_a_trial_is_what_it_was_run_for_whatever_its_recipe(ledger: Ledger, kind: TrialKind) -> None:
    ledger.write(result(recipe=linear_probe_of(Recipe()).as_dict(), kind=kind))
    assert [trial.kind for trial in ledger.results()] == [kind]


def test_tables_from_before_the_open_set_was_a_column_have_it_when_read(ledger: Ledger) -> None:
    rows = pd.DataFrame({FOLD: "label=A", LABEL: ["A", "B"], "prob_A": [0.5, 0.5]})
    ledger.write(result(fold="label=A", predictions=rows, samples=rows))
    (trial,) = ledger.results()
    loaded = ledger.load(trial)
    for table in (loaded.predictions, loaded.samples, ledger.table("predictions", [trial])):
        assert table is not None
        assert table[OPEN_SET].tolist() == [True, False]
    assert OPEN_SET not in ledger.table("history", [trial])
