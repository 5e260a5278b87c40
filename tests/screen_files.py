"""Files and tables of small screens, for the tests of whatever reads them."""

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from moa_ray.common.schema import COMPOUND, CONCENTRATION, CONTROL, FIELD, LABEL, PLATE, WEEK, WELL


def tiff(path: Path, pixels: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) if pixels is None else pixels).save(path)
    return path


def archive(path: Path, **members: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, source in members.items():
            file.write(source, name)


def sound_fields() -> pd.DataFrame:
    """Two labels of two compounds each and a control, all on one plate."""
    rows = [("W1", "B02", "a", "A"), ("W1", "B03", "b", "A"), ("W2", "B04", "c", "B"), ("W2", "B05", "d", "B")]
    table = pd.DataFrame([*rows, ("W1", "H12", "DMSO", None)], columns=[WEEK, WELL, COMPOUND, LABEL])
    return table.assign(**{PLATE: "p1", FIELD: "1", CONCENTRATION: 1.0, CONTROL: table[COMPOUND] == "DMSO"})


# A table --------------------------------------------------------------------------------------------------------------

TABLE_COLUMNS = {PLATE: "plate", WELL: "well", FIELD: "site", COMPOUND: "compound", CONCENTRATION: "dose", LABEL: "moa"}
TABLE_COMPOUNDS = (("a", "A"), ("b", "A"), ("c", "B"), ("d", "B"))


def table_rows(
    compounds: Sequence[tuple[str, str]] = TABLE_COMPOUNDS, wells: int = 2, controls: int = 4
) -> pd.DataFrame:
    """Return rows of one plate, a field a well: compounds with their labels, then DMSO."""
    names = [pair for pair in compounds for _ in range(wells)] + [("DMSO", "")] * controls
    table = pd.DataFrame(names, columns=["compound", "moa"])
    wells_ = [f"{'ABCDEFGH'[place // 12]}{place % 12 + 1:02}" for place in range(len(table))]
    dose = np.where(table["compound"] == "DMSO", 0, 1)
    return table.assign(plate="P1", well=wells_, site="1", dose=dose, path=[f"{well}.tif" for well in wells_])


def table_sweep(folder: Path, rows: pd.DataFrame | None = None, **more: Any) -> dict[str, Any]:
    """Write a table of fields and an image of noise a row; return the content of a sweep file over them.

    Parameters
    ----------
    folder : Path
        Where they are to lie, and OUT and the tiles beside them.
    rows : DataFrame, optional
        As `table_rows` makes them.
    **more
        Sections that are added or take the place of others; what stands in ``screen`` is added to that section.
    """
    rows = table_rows() if rows is None else rows
    for number, name in enumerate(dict.fromkeys(rows["path"])):
        tiff(folder / "screen" / name, np.random.default_rng(number).poisson(200, (32, 32)).astype(np.uint16))
    rows.to_csv(folder / "screen" / "fields.csv", index=False)
    screen = {"name": "table", "root": str(folder / "screen"), "fields": "fields.csv", "columns": TABLE_COLUMNS}
    screen |= {"images": {"DNA": "path"}, "control": "DMSO"}
    return {
        **{"study": "table", "out": str(folder / "runs" / "out"), "images": {"rows": 1, "columns": 1}},
        "recipe": {"backbone": "SmallCNN", "weights": "random", "image_size": 32, "epochs": 1, "batch_size": 8},
        **more,
        "screen": screen | more.get("screen", {}),
    }


# BBBC021 -------------------------------------------------------------------------------------------------------------

BBBC021_IMAGES, BBBC021_MOA = "BBBC021_v1_image.csv", "BBBC021_v1_moa.csv"


def bbbc021_rows(*wells: tuple[str, str, str, str]) -> pd.DataFrame:
    """An image table of one field a well, from plate, well, compound and concentration."""
    records = []
    for plate, well, compound, dose in wells:
        row = {"Image_Metadata_Plate_DAPI": plate, "Image_Metadata_Well_DAPI": well, "Replicate": "1"}
        row |= {"Image_Metadata_Compound": compound, "Image_Metadata_Concentration": dose}
        for wave, channel in enumerate(("DAPI", "Tubulin", "Actin"), 1):
            row[f"Image_FileName_{channel}"] = f"{well}_s1_w{wave}ABCD-{plate[-2:]}.tif"
            row[f"Image_PathName_{channel}"] = f"{plate.split('_')[0]}/{plate}"
        records.append(row)
    return pd.DataFrame(records)


BBBC021_WELLS = bbbc021_rows(
    ("Week1_10", "B2", "x", "3.0"), ("Week1_10", "B03", "y", "0.1"), ("Week1_11", "B04", "z", "1"),
    ("Week1_11", "B05", "w", "1"), ("Week1_10", "B11", "DMSO", "0"), ("Week1_11", "B11", "DMSO", "0"),
    ("Week1_11", "C05", "unknown", "1"),
)  # fmt: skip
BBBC021_LABELS = 'compound,concentration,moa\nx,3.000000,A\ny,0.1000,A\nz,1,B\nw,1,B\n"DMSO",0.000000,"DMSO"\n'


def bbbc021_tables(root: Path, table: pd.DataFrame = BBBC021_WELLS, labels: str = BBBC021_LABELS) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    table.to_csv(root / BBBC021_IMAGES, index=False)
    (root / BBBC021_MOA).write_text(labels)
    return root


def paint_bbbc021(root: Path, layout: str) -> None:
    """Every image of BBBC021_WELLS, in one of the layouts that people have."""
    for index, row in BBBC021_WELLS.iterrows():
        plate = row["Image_Metadata_Plate_DAPI"]
        folder = root / (f"Week1/{plate}" if layout == "weeks" else plate)
        folder.mkdir(parents=True, exist_ok=True)
        for channel in ("DAPI", "Tubulin", "Actin"):
            pixels = np.full((2, 3), 10 * int(str(index)) + len(channel), np.uint16)
            Image.fromarray(pixels).save(folder / row[f"Image_FileName_{channel}"])
    if layout != "zips":
        return
    for plate in BBBC021_WELLS["Image_Metadata_Plate_DAPI"].unique():
        with zipfile.ZipFile(root / f"BBBC021_v1_images_{plate}.zip", "w") as file:
            for path in (root / plate).iterdir():
                file.write(path, f"{plate}/{path.name}")
        shutil.rmtree(root / plate)
