"""Example fields: chosen once where the screen is open, read again from a few files."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from moa_ray.common.schema import COMPOUND, CONCENTRATION, CONTROL, FIELD, LABEL, PLATE, WELL
from moa_ray.screens import example_fields
from moa_ray.screens.screen import Screen

# plate, well, compound, label
ROWS = [
    ("P2", "B02", "a", "X"),
    ("P2", "B11", "DMSO", None),
    ("P2", "B12", "DMSO", None),
    ("P1", "B02", "a", "X"),
    ("P3", "B03", "b", "Y"),
    ("P2", "B03", "c", "Z"),
]


def screen(root: Path, size: tuple[int, int] = (4, 6)) -> Screen:
    """A screen of one field a well, each of one grey level a channel, and controls on plate P2 alone."""
    fields = pd.DataFrame(ROWS, columns=[PLATE, WELL, COMPOUND, LABEL])
    fields = fields.assign(**{FIELD: "1", CONCENTRATION: 0.3, CONTROL: fields[COMPOUND] == "DMSO"})
    for number, channel in enumerate(("Actin", "DAPI")):
        fields[f"Path_{channel}"] = [f"{row[0]}-{row[1]}-{channel}.tif" for row in ROWS]
        for row, name in enumerate(fields[f"Path_{channel}"]):
            Image.fromarray(np.full(size, 10 * row + number, np.uint16)).save(root / name)
    return Screen("test", root, fields, ("Actin", None, "DAPI"))


def test_a_label_is_shown_beside_a_control_of_its_plate(tmp_path: Path) -> None:
    chosen = json.loads(json.dumps(example_fields.choose(screen(tmp_path))))  # as it comes back from the ledger
    pairs, missing = example_fields.read(chosen)
    assert missing == ""
    assert [(pair.label, pair.treated.place) for pair in pairs] == [
        ("X", "P2, B02, field 1"),  # not the first field, whose plate has no control
        ("Y", "P3, B03, field 1"),
        ("Z", "P2, B03, field 1"),
    ]
    assert [pair.control and pair.control.place for pair in pairs] == ["P2, B11, field 1", None, "P2, B11, field 1"]
    assert [float(plane[0, 0]) for plane in pairs[0].treated.planes] == [0, 1]
    assert pairs[0].control is not None
    assert pairs[0].control.compound == "DMSO"
    assert [float(plane[0, 0]) for plane in pairs[0].control.planes] == [10, 11]
    assert pairs[0].treated.size == (6, 4)


def test_large_fields_are_averaged_over_whole_blocks(tmp_path: Path) -> None:
    large = screen(tmp_path, (600, 1000))
    pixels = np.random.default_rng(0).integers(0, 4000, (600, 1000)).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "P2-B02-Actin.tif")
    pairs, _ = example_fields.read(example_fields.choose(large))
    shown = pairs[0].treated.planes[0]
    assert shown.shape == (200, 333)
    np.testing.assert_allclose(shown[1, 2], pixels[3:6, 6:9].mean(), rtol=1e-6)
    assert pairs[0].treated.size == (1000, 600)


def test_fields_that_are_gone_are_said(tmp_path: Path) -> None:
    chosen = example_fields.choose(screen(tmp_path))
    (tmp_path / "P3-B03-DAPI.tif").unlink()
    pairs, missing = example_fields.read(chosen)
    assert [pair.label for pair in pairs] == ["X", "Z"]
    assert missing == "Fields that cannot be read are not shown: Y (P3-B03-DAPI.tif: missing)."
    nothing, why = example_fields.read({**chosen, "root": str(tmp_path / "elsewhere")})
    assert nothing == []
    assert f"{tmp_path / 'elsewhere'} is not at hand" in why
    assert example_fields.read(None)[1].startswith("No example fields: this ledger does not say which")


def test_a_ledger_that_was_tampered_with_reads_nothing_outside_the_screen(tmp_path: Path) -> None:
    root = tmp_path / "screen"
    root.mkdir()
    chosen = example_fields.choose(screen(root))
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(tmp_path / "secret.tif")
    chosen["pairs"][0]["treated"]["paths"] = ["../secret.tif"]
    pairs, missing = example_fields.read(chosen)
    assert [pair.label for pair in pairs] == ["Y", "Z"]
    assert "leads out of the screen's root" in missing
