"""From a sweep file to the table of tiles that trials are made of."""

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import screen_files

from moa_ray import plan
from moa_ray.common.schema import COMPOUND, FIELD_KEY, LABEL, TILE_KEY, WELL_KEY
from moa_ray.config import sweep_file
from moa_ray.config.sweep_file import Sweep
from moa_ray.screens.reading import open_image
from moa_ray.study import Study


@pytest.fixture(scope="module")
def make_sweep(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Sweep]:
    """A sweep over one painted screen, 3 labels x 2 compounds, with more keys."""
    folder = tmp_path_factory.mktemp("study")
    painting = {"labels": 3, "compounds": 2, "concentrations": 1, "replicates": 2, "height": 96, "width": 96}

    def make(**more: object) -> Sweep:
        plain = {
            "study": "test",
            "out": str(folder / "out"),
            "screen": {"name": "synthetic", "root": str(folder / "painted"), "painting": painting},
            "recipe": {"backbone": "SmallCNN", "weights": "random", "image_size": 32, "epochs": 2},
            **more,
        }
        return sweep_file.check(plain, "test.yaml")

    return make


def test_trials_are_recipes_times_folds_recipe_by_recipe(make_sweep: Callable[..., Sweep]) -> None:
    study = Study.open(make_sweep(search={"space": {"learning_rate": [0.1, 0.01]}}))
    names = [(recipe.learning_rate, fold) for recipe, fold in study.trials]
    folds = [fold.name for fold in study.folds]
    assert names == [(rate, fold) for rate in (0.1, 0.01) for fold in folds]
    assert len(folds) == 6


def test_material_joins_labels_to_tiles_by_key(make_sweep: Callable[..., Sweep]) -> None:
    study = Study.open(make_sweep())
    store = study.prepare(lambda done, total: None)
    trial_data = study.trial_data(store)
    assert len(trial_data.table) == len(store.table)
    labels = {tuple(row[FIELD_KEY]): row[LABEL] for _, row in study.screen.labelled.iterrows()}
    places = {tuple(row[TILE_KEY]): row["row"] for _, row in store.table.iterrows()}
    for _, row in trial_data.table.iterrows():
        assert row[LABEL] == labels[tuple(row[FIELD_KEY])]
        assert row["row"] == places[tuple(row[TILE_KEY])]
        assert trial_data.classes[trial_data.labels()[row["row"]]] == row[LABEL]


def test_validation_wells_are_neither_trained_on_nor_held_out(make_sweep: Callable[..., Sweep]) -> None:
    study = Study.open(make_sweep(validation={"by": "well", "share": 0.3}))
    trial_data = study.trial_data(study.prepare(lambda done, total: None))
    for fold in study.folds:
        parts = trial_data.split(fold.name)
        wells = {
            part: set(map(tuple, trial_data.table.iloc[rows][WELL_KEY].to_numpy())) for part, rows in parts.items()
        }
        assert wells["validation"]
        assert not wells["train"] & wells["validation"]
        assert not (wells["train"] | wells["validation"]) & wells["test"]
        assert set(trial_data.table.iloc[parts["test"]][COMPOUND]) == {fold.value}
        again = trial_data.split(fold.name)
        assert all(np.array_equal(parts[part], again[part]) for part in parts)


def test_seeds_depend_on_the_study_and_the_fold_alone(make_sweep: Callable[..., Sweep]) -> None:
    studies = [Study.open(make_sweep(seed=seed)) for seed in (1, 2)]
    first, second = (study.trial_data(study.prepare(lambda done, total: None)) for study in studies)
    folds = [fold.name for fold in studies[0].folds]
    assert len({tuple(first.seeds(fold)) for fold in folds}) == len(folds)
    assert first.seeds(folds[0]) != second.seeds(folds[0])


def test_members_draw_for_themselves_but_hold_out_and_watch_the_same_wells(make_sweep: Callable[..., Sweep]) -> None:
    study = Study.open(make_sweep(seeds=[1, 2], validation={"by": "well", "share": 0.3}))
    trial_data = study.trial_data(study.prepare(lambda done, total: None))
    plain = replace(study, sweep=make_sweep(validation={"by": "well", "share": 0.3}))
    before = plain.trial_data(plain.prepare(lambda done, total: None))
    fold = study.folds[0].name
    assert len({tuple(trial_data.seeds(fold, member)) for member in (None, 1, 2)}) == 3
    assert trial_data.seeds(fold) == before.seeds(fold)
    for part, rows in trial_data.split(fold).items():
        np.testing.assert_array_equal(rows, before.split(fold)[part])


def test_plan_counts_the_trials_of_all_members(make_sweep: Callable[..., Sweep]) -> None:
    text = plan.describe(Study.open(make_sweep(seeds=[1, 2], search={"space": {"learning_rate": [0.1, 0.01]}})))
    assert "candidates   2, each with 2 seeds: 1, 2" in text
    assert "trials       24, and as many trainings at most" in text
    search = {"mode": "optuna", "candidates": 4, "space": {"learning_rate": [0.1, 0.01]}}
    text = plan.describe(Study.open(make_sweep(seeds=[1, 2, 3], search=search)))
    assert "ensemble     the winner with 2 more seeds, on all folds" in text
    assert f"trials       {4 * 3 + 3 + 2 * 6}, and as many" in text  # 3 search folds, 3 to confirm


def test_plan_names_candidates_folds_disk_and_memory(make_sweep: Callable[..., Sweep]) -> None:
    text = plan.describe(Study.open(make_sweep(folds={"hold_out": "week"})))
    for words in (
        "candidates   1",
        "held out: week",
        "trials       2",
        "MB of tiles",
        "memory       about",
        "errors       0",
    ):
        assert words in text


def test_a_label_is_held_out_whole_with_known_compounds_beside_it(make_sweep: Callable[..., Sweep]) -> None:
    study = Study.open(make_sweep(folds={"hold_out": "label"}))
    assert "6 treatments of 6 compounds held out with their whole label, 6 treatments of 6" in plan.describe(study)
    trial_data = study.trial_data(study.prepare(lambda done, total: None))
    for fold in study.folds:
        parts = {part: trial_data.table.iloc[rows] for part, rows in trial_data.split(fold.name).items()}
        assert fold.value not in set(parts["train"][LABEL])
        assert set(parts["test"][COMPOUND]) == {*study_compounds(study, fold.value), *fold.known}
        assert not set(parts["train"][COMPOUND]) & set(parts["test"][COMPOUND])


def study_compounds(study: Study, label: str) -> set[str]:
    labelled = study.screen.labelled
    return set(labelled.loc[labelled[LABEL] == label, COMPOUND])


@pytest.mark.parametrize(("below", "fields"), [("leave_out", 8), ("train_only", 10)])
def test_labels_of_few_compounds_are_named_as_not_scored(tmp_path: Path, below: str, fields: int) -> None:
    rows = screen_files.table_rows([*screen_files.TABLE_COMPOUNDS, ("e", "C")])
    plain = screen_files.table_sweep(tmp_path, rows, folds={"min_compounds": 2, "below": below})
    study = Study.open(sweep_file.check(plain, "test.yaml"))
    assert len(study.screen.labelled) == fields
    assert study.screen.labels == (("A", "B") if below == "leave_out" else ("A", "B", "C"))
    assert {fold.value for fold in study.trained_folds} == {"a", "b", "c", "d"}
    assert study.treatments == 5
    (lost,) = study.unscored.to_dict("records")
    assert (lost[COMPOUND], lost[LABEL]) == ("e", "C")
    assert "not scored: 1 treatment: its label has 1 compound, fewer than folds.min_compounds (2)" in plan.describe(
        study
    )


def test_control_that_is_a_class_is_held_out_learnt_and_made_into_tiles_with_a_warning(tmp_path: Path) -> None:
    rows = screen_files.table_rows((("wortmannin", "positive"),), wells=3, controls=3)
    rows["moa"] = rows["moa"].replace("", "negative")
    screen = {"control_is_class": True}
    study = Study.open(
        sweep_file.check(screen_files.table_sweep(tmp_path, rows, screen=screen, folds={"hold_out": "Well"}), "t.yaml")
    )
    study.require_sound()
    assert "a control that is held out is part of what its plate is normalised by" in study.warnings[0]
    assert len(study.trained_folds) == len(study.screen.labelled) == 6
    trial_data = study.trial_data(study.prepare(lambda done, total: None))
    assert trial_data.table[LABEL].value_counts().to_dict() == {"positive": 3, "negative": 3}


def test_too_few_labels_of_enough_compounds_are_an_error(make_sweep: Callable[..., Sweep]) -> None:
    study = Study.open(make_sweep(folds={"min_compounds": 3}))
    assert any(
        problem.severity == "error" and problem.message.startswith("folds.min_compounds: 0 of 3 labels have 3")
        for problem in study.problems
    )


def test_plan_names_frozen_features_and_the_first_look(make_sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    quiet = {"channel_jitter": [], "blur": 0, "noise": 0}
    recipe = {"backbone": "SmallCNN", "weights": "a.h5", "image_size": 32, "freeze": "all", "augment": quiet}
    text = plan.describe(Study.open(make_sweep(recipe=recipe, search={"screen_with_frozen": {"keep": 1}})))
    for words in (
        "linear probe 1 frozen backbone on 6 folds, 6 trials more; the best 1 backbone will go on",
        "features     2 sets of frozen features",
        "SmallCNN, 32 px, 8 orientations:",
        "SmallCNN, 32 px, 1 orientation:",
    ):
        assert words in text
    text = plan.describe(Study.open(make_sweep()))
    assert "features" not in text
    assert "linear probe" not in text


def test_changed_weights_file_means_other_features(make_sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    weights = tmp_path / "a.weights.h5"
    quiet = {"channel_jitter": [], "blur": 0, "noise": 0}
    recipe = {"backbone": "SmallCNN", "weights": str(weights), "image_size": 32, "freeze": "all", "augment": quiet}
    study = Study.open(make_sweep(recipe=recipe))
    paths = set()
    for content in (b"one", b"two", b"one"):
        weights.write_bytes(content)
        paths |= {features.path for features in study.frozen_features(tmp_path, study.sweep.frozen).values()}
    assert len(paths) == 2


def test_every_error_stops_a_sweep_in_one_message(make_sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    painted = make_sweep(screen={**make_sweep().screen.model_dump(mode="json"), "root": str(tmp_path / "painted")})
    study = Study.open(painted)
    columns = study.screen.path_columns
    missing, broken = (study.screen.root / study.screen.fields[columns[0]].iloc[i] for i in (0, 1))
    missing.unlink()
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match="cannot be swept") as error:
        Study.open(painted).require_sound()
    assert missing.name in str(error.value)
    assert broken.name in str(error.value)


def test_official_tables_without_images_give_one_error_and_a_plan(
    make_sweep: Callable[..., Sweep], shared: Path
) -> None:
    study = Study.open(make_sweep(screen={"name": "bbbc021", "root": str(shared / "data" / "bbbc021_csv")}))
    errors = [problem.message for problem in study.problems if problem.severity == "error"]
    assert len(errors) == 1
    assert "7584 of 7584" in errors[0]
    assert "103 treatments, 38 compounds, 12 labels" in plan.describe(study)


def test_real_cells_make_38_folds_and_no_error(make_sweep: Callable[..., Sweep], shared: Path) -> None:
    root = shared / "data" / "bbbc021_cells"
    study = Study.open(make_sweep(screen={"name": "bbbc021", "root": str(root)}))
    study.require_sound()
    assert len(study.trained_folds) == 38
    with open_image(root, study.screen.fields[study.screen.path_columns[0]].iloc[0]) as file:
        assert file.read(2) in (b"II", b"MM")


def test_record_keeps_what_all_trials_share(make_sweep: Callable[..., Sweep]) -> None:
    study = Study.open(make_sweep())
    record = study.record(study.prepare(lambda done, total: None), "the command")
    assert record["labels"] == list(study.screen.labels)
    assert record["search_folds"] == [fold.name for fold in study.trained_folds]
    assert record["confirm_folds"] == []
    assert record["versions"]["keras"] == version("keras")


def test_search_and_confirm_folds_share_none_and_are_all(make_sweep: Callable[..., Sweep]) -> None:
    search = {"mode": "optuna", "space": {"learning_rate": [0.1, 0.01]}}
    study = Study.open(make_sweep(search=search))
    assert sorted([*study.search_folds, *study.confirm_folds]) == [fold.name for fold in study.trained_folds]
    assert len(study.search_folds) == len(study.screen.labels)
    assert "3 folds, the first 3 for every candidate" in plan.describe(study)


def test_no_held_out_group_is_seen_and_confirm_folds_train_on_every_well(make_sweep: Callable[..., Sweep]) -> None:
    search = {"mode": "optuna", "space": {"learning_rate": [0.1, 0.01]}}
    study = Study.open(make_sweep(search=search))
    trial_data = study.trial_data(study.prepare(lambda done, total: None))
    for name, fold in trial_data.folds.items():
        parts = {part: trial_data.table.iloc[rows] for part, rows in trial_data.split(name).items()}
        for part in ("train", "validation"):
            assert fold.value not in set(parts[part][COMPOUND])
        assert set(parts["test"][COMPOUND]) == {fold.value}
        assert (len(parts["validation"]) == 0) == (name in study.confirm_folds)
        assert len(trial_data.table) == sum(map(len, parts.values()))


def test_weights_file_that_is_missing_is_named(make_sweep: Callable[..., Sweep]) -> None:
    study = Study.open(make_sweep(recipe={"backbone": "SmallCNN", "weights": "nowhere.weights.h5", "image_size": 32}))
    with pytest.raises(ValueError, match=r"nowhere\.weights\.h5"):
        study.record(study.prepare(lambda done, total: None), "the command")
