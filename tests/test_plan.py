"""The plan says all that stops a sweep, ends with 2 where anything does, and writes nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from factories import painting
from screen_files import table_rows, table_sweep, tiff

from moa_ray import soundness, sweep
from moa_ray.config import sweep_file
from moa_ray.study import Study
from moa_ray.tiles import dropped
from moa_ray.tracking.ledger import Ledger
from moa_ray.tracking.results import Result

Planned = Callable[..., tuple[int, str]]


@pytest.fixture
def planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Planned:
    """What the plan of a table's sweep ends with and prints; nothing below the folder changes by it."""

    def plan(rows: pd.DataFrame | None = None, **more: Any) -> tuple[int, str]:
        return of(table_sweep(tmp_path, rows, **more))

    def of(plain: dict[str, Any]) -> tuple[int, str]:
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(plain))
        before = listing(tmp_path)
        status = sweep.main([str(path), "--plan"])
        assert listing(tmp_path) == before
        return status, capsys.readouterr().out

    plan.of = of  # type: ignore[attr-defined]
    return plan


def listing(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_sound_sweep_is_planned_with_status_0(planned: Planned) -> None:
    status, text = planned()
    assert (status, "errors       0" in text) == (0, True)


def test_a_screen_without_controls_cannot_be_normalised(planned: Planned) -> None:
    status, text = planned(table_rows(controls=0), screen={"control": None})
    assert status == 2
    assert "images.normalise.by: the screen has no control fields to normalise by" in text
    assert planned(table_rows(controls=0), screen={"control": None}, images={"normalise": {"by": "none"}})[0] == 0


@pytest.mark.parametrize(("black", "status"), [(4, 2), (3, 0)])
def test_controls_of_one_single_value_are_an_error(planned: Planned, tmp_path: Path, black: int, status: int) -> None:
    rows = table_rows()
    plain = table_sweep(tmp_path, rows)
    for name in rows.loc[rows["compound"] == "DMSO", "path"].head(black):
        tiff(tmp_path / "screen" / name, np.zeros((32, 32), np.uint16))
    found, text = planned.of(plain)  # type: ignore[attr-defined]
    assert found == status
    assert ("plate P1: its controls have one single value in Path_DNA" in text) == (status == 2)


def test_folds_of_which_none_can_be_trained_are_an_error(planned: Planned) -> None:
    rows = table_rows()
    columns = {"Metadata_Plate": "plate", "Metadata_Well": "well", "Metadata_Compound": "compound"}
    columns |= {"Metadata_Label": "moa", "Metadata_Set": "set"}
    rows["set"] = np.where(rows["moa"] == "A", "known", "new")
    status, text = planned(rows, folds={"hold_out": "Set"}, screen={"columns": columns})
    assert status == 2
    assert "folds: none can be trained: Set=known: no training field is left for label 'A'" in text


def test_wells_that_cannot_be_split_for_validation_are_an_error(planned: Planned) -> None:
    columns = {"Metadata_Plate": "plate", "Metadata_Well": "well", "Metadata_Compound": "compound"}
    columns |= {"Metadata_Label": "moa", "Metadata_Set": "set"}
    rows = table_rows(wells=1)
    rows["set"] = ["x", "y", "x", "y", *["z"] * 4]
    split: dict[str, Any] = {"folds": {"hold_out": "Set"}, "screen": {"columns": columns}}
    status, text = planned(rows, validation={"share": 0.2}, **split)
    assert status == 2
    assert "validation: each label has one training well" in text
    assert planned(rows, **split)[0] == 0


def test_every_error_is_named_at_once(planned: Planned, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where OUT's folder is to be")
    status, text = planned(table_rows(controls=0), screen={"control": None})
    assert status == 2
    assert "errors       3" in text
    for words in ("no control fields to normalise by", f"out: {tmp_path}/runs/out", "is a file; give another folder"):
        assert words in text


def test_an_out_that_cannot_be_written_is_an_error(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soundness.os, "access", lambda path, mode: False)  # root may write anywhere
    status, text = planned()
    assert status == 2
    assert f"out: {tmp_path}/runs/out: {tmp_path} cannot be written; give another folder" in text


def test_too_little_disk_for_the_tiles_is_an_error(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundness.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
    status, text = planned()
    assert status == 2
    assert "of tiles may have to be written, but 0.0 MB are free" in text


def begun(plain: dict[str, Any], *statuses: str) -> Ledger:
    """OUT of a sweep with a few trials."""
    study = Study.open(sweep_file.check(plain, "test.yaml"))
    ledger = Ledger(study.sweep.out)
    ledger.open(study.sweep, study.identity)
    for (recipe, fold), status in zip(study.trials, statuses, strict=False):
        tables = {"predictions": pd.DataFrame({"prob_A": [1.0]})} if status == "finished" else {}
        ledger.write(Result(recipe.candidate, fold, status, recipe.as_dict(), **tables))  # type: ignore[arg-type]
    return ledger


def test_what_out_holds_is_said(planned: Planned, tmp_path: Path) -> None:
    plain = table_sweep(tmp_path)
    ledger = begun(plain, "finished", "finished", "crashed")
    status, text = planned.of(plain)  # type: ignore[attr-defined]
    assert status == 0
    assert "there        2 of 4 trials done, 1 crashed and tried again" in text
    first = next(result for result in ledger.results() if result.status == "finished")
    (ledger.folder(*first.key) / "predictions.parquet").unlink()
    assert "1 of 4 trials done" in planned.of(plain)[1]  # type: ignore[attr-defined]


def test_an_out_of_another_sweep_is_the_error_that_the_sweep_gives(planned: Planned, tmp_path: Path) -> None:
    plain = table_sweep(tmp_path)
    begun(plain)
    status, text = planned.of({**plain, "seed": 5})  # type: ignore[attr-defined]
    assert status == 2
    assert "holds trials of a different sweep; these differ: seed. Give another out, or --fresh" in text


def test_dropped_tiles_of_a_store_that_is_there_are_counted(planned: Planned, tmp_path: Path) -> None:
    plain = table_sweep(tmp_path)
    rows = table_rows()
    for place, name in enumerate(rows.loc[rows["compound"] == "a", "path"]):
        dead = np.zeros((32, 32), np.uint16)
        dead[3, place] = 60000
        tiff(tmp_path / "screen" / name, dead)
    study = Study.open(sweep_file.check(plain, "test.yaml"))
    store = study.prepare(lambda done, total: None)
    assert dropped.NO_CELLS in set(store.dropped[dropped.REASON])
    status, text = planned.of(plain)  # type: ignore[attr-defined]
    assert status == 0
    assert "dropped      2 of 8 tiles; no tile is left of 2 of 8 fields and 2 of 8 wells" in text
    assert "P1, a: 2 of 2 tiles" in text
    assert "1 of 4 treatments have no tile (no cells) and cannot be predicted: a 1" in text


@pytest.mark.parametrize("name", ["synthetic", "bbbc014"])
def test_a_painted_screen_is_planned_without_painting(planned: Planned, tmp_path: Path, name: str) -> None:
    painted = {"height": 96, "width": 96} if name == "bbbc014" else painting()
    plain = table_sweep(tmp_path)
    plain["screen"] = {"name": name, "root": str(tmp_path / "painted"), "painting": painted}
    plain["images"] = {"normalise": {"by": "none" if name == "bbbc014" else "plate"}}
    plain["folds"] = {"hold_out": "cell_line" if name == "bbbc014" else "compound"}
    status, text = planned.of(plain)  # type: ignore[attr-defined]
    assert status == 0, text
    assert f"at {tmp_path}/painted:" in text
    assert f"{64 if name == 'bbbc014' else 8} treated wells" in text
    Study.open(sweep_file.check(plain, "test.yaml"))
    assert (tmp_path / "painted" / "painting.json").exists()
    later = planned.of(plain)[1]  # type: ignore[attr-defined]
    assert later == text
