"""The fingerprint: all that shapes tiles changes it, and nothing else."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tile_stores import prepared

from moa_ray.common.schema import FIELD_KEY, LABEL, WEEK
from moa_ray.config.preparation import Normalise, Preparation
from moa_ray.config.quality import ChannelQuality, Limits
from moa_ray.screens.screen import Screen
from moa_ray.tiles.fingerprint import fingerprint


@pytest.mark.parametrize(
    "preparation",
    [
        Preparation(anscombe=False),
        Preparation(offset=100),
        Preparation(normalise=Normalise(by="week")),
        Preparation(normalise=Normalise(min_control_fields=5)),
        Preparation(normalise=Normalise(by="Metadata_Cells")),
        Preparation(normalise=Normalise(of="all")),
        Preparation(normalise=Normalise(statistic="median_mad")),
        Preparation(range_over="tile"),
        Preparation(rows=1),
        Preparation(columns=1),
        Preparation(quality={"DAPI": ChannelQuality(focus=Limits(min=1))}),
        Preparation(empty_above=51),
        Preparation(empty_share=0.003),
        Preparation(empty_share=None),
        Preparation(field_size=64),
    ],
    ids=str,
)
def test_every_setting_changes_the_fingerprint(screen: Screen, preparation: Preparation) -> None:
    assert fingerprint(screen, preparation, [32]) != fingerprint(screen, Preparation(), [32])


def test_store_of_a_field_that_is_not_resized_is_known_as_before_there_was_such_a_setting(
    screen: Screen, tmp_path: Path
) -> None:
    facts = json.loads((prepared(screen, tmp_path).path / "fingerprint.json").read_text())
    assert facts["preparation"].keys() == {
        *("anscombe", "normalise", "range_over", "rows", "columns", "empty_above", "empty_share")
    }
    assert facts["preparation"]["normalise"] == {"by": "plate", "min_control_fields": 4}


def _first(screen: Screen, column: str, value: str) -> Screen:
    fields = screen.fields.copy()
    fields.loc[screen.labelled.index[0], column] = value
    return replace(screen, fields=fields)


def test_keys_sizes_channels_and_weeks_change_the_fingerprint(screen: Screen) -> None:
    location = str(screen.labelled["Path_DAPI"].iloc[1])
    changed = [
        *(_first(screen, column, "other") for column in (*FIELD_KEY, WEEK)),
        _first(screen, "Path_DAPI", location),
        replace(screen, channels=("DAPI", "Tubulin", "Actin")),
        replace(screen, channels=("Actin", "Tubulin", None)),
        replace(screen, fields=screen.fields.drop(screen.controls.index[0])),
        replace(screen, fields=screen.fields.drop(screen.labelled.index[0])),
    ]
    marks = [fingerprint(variant, Preparation(), [32]) for variant in (screen, *changed)]
    marks += [fingerprint(screen, Preparation(), sizes) for sizes in ([16], [16, 32])]
    assert len(set(marks)) == len(marks)


def test_values_of_the_column_that_is_normalised_by_change_the_fingerprint(screen: Screen) -> None:
    batched = replace(screen, fields=screen.fields.assign(Metadata_Batch="b1"))
    by_batch = Preparation(normalise=Normalise(by="Metadata_Batch"))
    changed = _first(batched, "Metadata_Batch", "b2")
    assert fingerprint(changed, by_batch, [32]) != fingerprint(batched, by_batch, [32])
    assert fingerprint(changed, Preparation(), [32]) == fingerprint(screen, Preparation(), [32])


def test_labels_and_order_leave_the_fingerprint_unchanged(screen: Screen) -> None:
    mark = fingerprint(screen, Preparation(), [16, 32])
    renamed = _first(screen, LABEL, "another")
    shuffled = replace(screen, fields=screen.fields.sample(frac=1, random_state=1))
    assert fingerprint(renamed, Preparation(), [32, 16]) == mark
    assert fingerprint(shuffled, Preparation(), [32, 16, 32]) == mark


@pytest.mark.parametrize("role", ["labelled", "controls"])
def test_a_file_that_changes_makes_a_new_store_beside_the_old_one(screen: Screen, tmp_path: Path, role: str) -> None:
    store = prepared(screen, tmp_path)
    file = screen.root / getattr(screen, role)["Path_Actin"].iloc[0]
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    touched = prepared(screen, tmp_path)
    status = file.stat()
    file.write_bytes(file.read_bytes() + b"\0")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    longer = prepared(screen, tmp_path)
    assert len({store.path, touched.path, longer.path}) == 3
    assert all(each.file(32).exists() for each in (store, touched, longer))
