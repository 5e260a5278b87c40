"""Sweep files, studies and tables as small as a test can stand on, which many test files need.

A factory takes what a test is about; all else has a value that is never looked at.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from moa_ray.common.schema import (
    BACKBONE,
    CANDIDATE,
    COMPOUND,
    CONCENTRATION,
    FIELD,
    FOLD,
    LABEL,
    PLATE,
    TILE,
    WELL,
    probability_column,
)

LABELS = ("X", "Y", "Z")
TILE_COLUMNS = [PLATE, WELL, FIELD, TILE, COMPOUND, CONCENTRATION, LABEL]


# Sweep files ----------------------------------------------------------------------------------------------------------


def painting(**more: Any) -> dict[str, Any]:
    """Return settings of a painted screen of seconds: two labels, two compounds each, 96 pixels."""
    size = {"height": 96, "width": 96}
    return {"labels": 2, "compounds": 2, "concentrations": 1, "replicates": 2, **size, **more}


def recipe(**more: Any) -> dict[str, Any]:
    """Return the recipe of a training of a second: SmallCNN with drawn weights on 32 pixels."""
    return {"backbone": "SmallCNN", "weights": "random", "image_size": 32, "batch_size": 8, **more}


def sweep(folder: Path, **more: Any) -> dict[str, Any]:
    """Return the content of a sweep file over a painted screen: 4 folds of one recipe, 2 epochs each.

    Parameters
    ----------
    folder : Path
        Where OUT, the tiles and the painted screen will lie.
    **more
        Sections that are added, or take the place of those that are there.
    """
    return {
        **{"study": "tiny", "seed": 3, "out": str(folder / "out"), "tiles": str(folder / "tiles")},
        "screen": {"name": "synthetic", "root": str(folder / "painted"), "painting": painting()},
        "recipe": recipe(epochs=2),
        **more,
    }


def sweep_file(folder: Path, **more: Any) -> Path:
    """Write what `sweep` returns into a file of the folder."""
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep(folder, **more)), encoding="utf-8")
    return path


def study(folds: Sequence[str], confirm_folds: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    """Return the record of a study, as a ledger is opened with it.

    Parameters
    ----------
    folds : sequence of str
        Names of all folds, or of those that a search chooses on.
    confirm_folds : sequence of str
        Those that no choice sees.
    **more
        Keys that are added, or take the place of those that are there.
    """
    return {
        **{"study": "tiny", "command": "python -m moa_ray.sweep test.yaml", "seed": 0},
        **{"tiles": "fingerprint", "tile_store": "nowhere", "labels": list(LABELS)},
        **{"channels": ["Actin", "Tubulin", "DAPI"], "weights": {}, "warnings": [], "versions": {}},
        "folds": dict.fromkeys([*folds, *confirm_folds]),
        **{"search_folds": list(folds), "confirm_folds": list(confirm_folds)},
        **more,
    }


# Tables ---------------------------------------------------------------------------------------------------------------


def probabilities(rows: Any, labels: Sequence[str] = LABELS) -> dict[str, Any]:
    """Return the columns of probabilities, of rows that hold one for each label."""
    columns = np.asarray(rows, dtype=float).reshape(-1, len(labels)).T
    return dict(zip(map(probability_column, labels), columns, strict=True))


def tiles(rows: Sequence[tuple[Any, ...]], shares: Any, labels: Sequence[str] = LABELS, **more: Any) -> pd.DataFrame:
    """Return predictions of tiles, each compound a fold.

    Parameters
    ----------
    rows : sequence of tuple
        Plate, well, field, tile, compound, concentration and label of each tile.
    shares : array of shape (tiles, labels)
        Probabilities.
    labels : sequence of str
        The labels that the probabilities are of.
    **more
        Columns that are added, or take the place of those that are there.
    """
    table = pd.DataFrame(rows, columns=TILE_COLUMNS).assign(**{CANDIDATE: "candidate", BACKBONE: "SmallCNN"})
    table[FOLD] = "compound=" + table[COMPOUND]
    return table.assign(**probabilities(shares, labels)).assign(**more)


def treatments(
    shares: Any,
    label: str | Sequence[str] = LABELS[0],
    compound: Sequence[str] | None = None,
    labels: Sequence[str] = LABELS,
    **more: Any,
) -> pd.DataFrame:
    """Return predictions of treatments, by default each of a compound of its own.

    Parameters
    ----------
    shares : array of shape (treatments, labels)
        Probabilities.
    label : str or sequence of str
        True labels.
    compound : sequence of str, optional
        Compounds; treatments of the same one have one concentration after the other.
    labels : sequence of str
        The labels that the probabilities are of.
    **more
        Columns that are added, or take the place of those that are there.
    """
    columns = probabilities(shares, labels)
    count = len(next(iter(columns.values())))
    names = list(compound) if compound is not None else [f"c{number}" for number in range(count)]
    doses = [float(1 + names[:place].count(name)) for place, name in enumerate(names)]
    table = pd.DataFrame({COMPOUND: names, CONCENTRATION: doses, LABEL: label, **columns})
    table = table.assign(**{FOLD: "compound=" + table[COMPOUND], CANDIDATE: "candidate", BACKBONE: "SmallCNN"})
    return table.assign(**more)


def history(epochs: int = 2, **more: Any) -> pd.DataFrame:
    """Return what a training without validation wells leaves of its epochs."""
    number = np.arange(1, epochs + 1)
    measured: Mapping[str, Any] = {"loss": 1.0 / number, "accuracy": 1 - 0.5 / number, "learning_rate": 0.1}
    unmeasured = {"validation_loss": np.nan, "validation_accuracy": np.nan}
    speed = {"seconds": 1.0, "images_per_second": 10.0}
    return pd.DataFrame({"epoch": number, **measured}).assign(**unmeasured, **speed).assign(**more)
