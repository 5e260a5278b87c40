"""A report of predictions made elsewhere: read strictly, written where it harms nothing."""

import json
from pathlib import Path

import pandas as pd
import pytest

from moa_ray import report
from moa_ray.common.errors import InputError
from moa_ray.common.schema import BACKBONE, CANDIDATE, COMPOUND, CONCENTRATION, LABEL
from moa_ray.reporting import external

pytestmark = pytest.mark.usefixtures("undrawn")


def table() -> pd.DataFrame:
    """Two networks on three treatments; the second one gets one wrong."""
    rows = [
        (network, compound, dose, label, *(0.6, 0.3)[:: 1 if taken == "X" else -1])
        for network, wrong in (("A", ()), ("B", ("c",)))
        for compound, dose, label in (("a", "0.3", "X"), ("NA", "1", "Y"), ("c", "3.0", "Y"))
        for taken in ["XY"["XY".index(label) - (compound in wrong)]]
    ]
    return pd.DataFrame(rows, columns=["backbone", "compound", "concentration", "moa", "prob_X", "prob_Y"])


def written(folder: Path, rows: pd.DataFrame, name: str = "table.csv") -> Path:
    path = folder / name
    if path.suffix == ".parquet":
        rows.to_parquet(path, index=False)
    else:
        rows.to_csv(path, index=False)
    return path


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_columns_are_known_by_their_names(tmp_path: Path, name: str) -> None:
    treatments, remarks = external.read(written(tmp_path, table(), name))
    assert list(treatments[COMPOUND]) == ["a", "NA", "c"] * 2
    assert list(treatments[CONCENTRATION]) == [0.3, 1.0, 3.0] * 2
    assert list(treatments["predicted"]) == ["X", "Y", "Y", "X", "Y", "X"]
    assert treatments[CANDIDATE].equals(treatments[BACKBONE].rename(CANDIDATE))
    assert remarks[0].startswith("6 of 6 rows are not renormalised: their probabilities sum to 0.900 to 0.900")


def test_what_we_wrote_ourselves_is_read_again(tmp_path: Path) -> None:
    treatments, _ = external.read(written(tmp_path, table()))
    again, _ = external.read(written(tmp_path, treatments, "again.parquet"))
    pd.testing.assert_frame_equal(again, treatments)


def test_rows_that_sum_to_one_need_no_remark(tmp_path: Path) -> None:
    assert external.read(written(tmp_path, table().assign(prob_Y=1 - table()["prob_X"])))[1] == []


def changed(column: str, value: object, row: int = 1) -> pd.DataFrame:
    rows = table().astype(object)
    rows.loc[row, column] = value
    return rows


@pytest.mark.parametrize(
    ("wrong_table", "says"),
    [
        (table().drop(columns="moa"), "column Metadata_Label or moa or label is missing; it has backbone, compound"),
        (table().drop(columns="backbone"), "column backbone or candidate is missing"),
        (table().drop(columns="prob_Y"), "a column prob_<label> is needed for each of at least 2 labels, but it has 1"),
        (table().assign(label="X"), "columns moa and label say the same"),
        (table().iloc[:0], "the table has no rows"),
        (changed("moa", "Z"), "row 3: no column prob_Z for the true label 'Z'; there are probabilities for X, Y"),
        (changed("moa", None), "row 3: moa is empty"),
        (changed("compound", None), "row 3: compound is empty"),
        (changed("prob_X", None), "row 3: prob_X must be a probability from 0 to 1, but is empty (1 rows are wrong)"),
        (changed("prob_X", "nan"), "row 3: prob_X must be a probability from 0 to 1, but got 'nan'"),
        (changed("prob_X", "inf"), "row 3: prob_X must be a probability from 0 to 1, but got 'inf'"),
        (changed("prob_Y", -0.1), "row 3: prob_Y must be a probability from 0 to 1, but got '-0.1'"),
        (changed("prob_Y", "high"), "row 3: prob_Y must be a probability from 0 to 1, but got 'high'"),
        (changed("concentration", "3 uM"), "row 3: concentration must be a number of at least 0, but got '3 uM'"),
        (pd.concat([table(), table().iloc[[1]]]), "row 8: NA at 1 µmol/L of A stands in the table before (1 rows"),
        (changed("moa", "X"), "NA at 1 µmol/L carries two labels: X, Y; keep one"),
        (table().assign(candidate=["c"] * 2 + list("defg"), backbone=list("BAAAAA")), "c has two backbones: A, B"),
    ],
)
def test_a_wrong_table_is_named_with_row_and_rule(tmp_path: Path, wrong_table: pd.DataFrame, says: str) -> None:
    path = written(tmp_path, wrong_table)
    with pytest.raises(InputError, match=str(path)) as error:
        external.read(path)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("nowhere.csv", None, "no such file"),
        ("table.xlsx", b"", "a table ends in .csv or .parquet, but got .xlsx"),
        ("table.parquet", b"no parquet", "no table of predictions"),
        ("table.csv", b"\xff\xfe\x00", "no table of predictions"),
        ("table.csv", b"", "no table of predictions"),
    ],
)
def test_a_file_that_is_no_table_is_named(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as error:
        external.read(tmp_path / name)
    assert says in str(error.value)


# Writing --------------------------------------------------------------------------------------------------------------


def run(out: Path, file: Path, *more: str) -> int:
    return report.main([str(out), "--predictions", str(file), *more])


def test_a_report_of_a_given_table_stands_in_a_folder_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    assert run(out, written(tmp_path, table())) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["best"]["k"], summary["best"]["n"]) == (3, 3)
    assert "best of 2 candidates given, on the same treatments: optimistic" in summary["headline"]
    board = pd.read_csv(out / "leaderboard.csv")
    assert board[[CANDIDATE, "k", "n"]].to_numpy().tolist() == [["A", 3, 3], ["B", 2, 3]]
    assert len(pd.read_parquet(out / "treatments.parquet")) == 6
    html = (out / "report.html").read_text()
    assert "6 of 6 rows are not renormalised" in html
    assert "made elsewhere" in html
    for words in ("Folds left out", "Failed trials", "<dt>Seed"):
        assert words not in html
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == set(summary["files"])


def test_a_candidate_that_lacks_treatments_does_not_lead(tmp_path: Path) -> None:
    assert run(tmp_path / "out", written(tmp_path, table().iloc[1:])) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["best"][CANDIDATE] == "B"
    assert "the only one of 2 candidates given that has all treatments" in summary["headline"]
    board = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert board[[CANDIDATE, "complete", "n"]].to_numpy().tolist() == [["B", True, 3], ["A", False, 2]]


def test_the_same_command_again_replaces_its_own_report(tmp_path: Path) -> None:
    out, file = tmp_path / "out", written(tmp_path, table())
    assert run(out, file, "--reference", "kensert2019") == 0
    assert (out / "reference.csv").exists()
    assert run(out, written(tmp_path, table()[lambda rows: rows["backbone"] == "B"], "other.csv")) == 0
    assert not (out / "reference.csv").exists()
    assert sorted(path.name for path in (out / "figures").glob("confusion*")) == ["confusion-B.png", "confusion-B.svg"]


def sweep_there(out: Path) -> None:
    (out / "ledger").mkdir()


def notes_there(out: Path) -> None:
    (out / "notes.txt").write_text("mine")


def summary_there(out: Path) -> None:
    (out / "summary.json").write_text(json.dumps({"study": "mine"}))


def claimed_there(out: Path) -> None:
    (out / "thesis.tex").write_text("mine")
    (out / "summary.json").write_text(json.dumps({"predictions": "x", "files": ["summary.json", "thesis.tex"]}))


def link_there(out: Path) -> None:
    (out.parent / "precious.parquet").write_text("mine")
    (out / "treatments.parquet").symlink_to(out.parent / "precious.parquet")
    (out / "summary.json").write_text(json.dumps({"predictions": "x", "files": ["summary.json", "treatments.parquet"]}))


def folder_link_there(out: Path) -> None:
    (out.parent / "elsewhere").mkdir()
    (out / "figures").symlink_to(out.parent / "elsewhere")


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (sweep_there, "holds a sweep; its report comes from its ledger"),
        (notes_there, "of no earlier report of predictions: notes.txt; nothing was written"),
        (summary_there, "of no earlier report of predictions: summary.json"),
        (claimed_there, "of no earlier report of predictions: thesis.tex"),
        (link_there, "treatments.parquet (a link)"),
        (folder_link_there, "figures (a link)"),
    ],
)
def test_what_someone_else_left_is_never_overwritten(
    tmp_path: Path, place, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    place(out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run(out, written(tmp_path.parent, table(), f"{tmp_path.name}.csv")) == 2
    assert says in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_out_is_no_file_and_the_table_does_not_lie_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, table())
    assert run(file, file) == 2
    assert "is no folder" in capsys.readouterr().err
    assert run(tmp_path, file) == 2
    assert "where the report would overwrite it" in capsys.readouterr().err


def test_a_wrong_table_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "out", written(tmp_path, changed("moa", None))) == 2
    assert "row 3: moa is empty" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_name_in_the_table_leads_out_of_the_folder(tmp_path: Path) -> None:
    foreign = table().replace("A", "../../../A").assign(candidate=lambda rows: rows["backbone"] + "/<b>")
    assert run(tmp_path / "out", written(tmp_path, foreign)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"out", "table.csv"}
    assert len(list((tmp_path / "out" / "figures").glob("confusion*A*.svg"))) == 1
    assert "/<b>" not in (tmp_path / "out" / "report.html").read_text()


def test_the_paper_s_own_predictions_give_its_numbers(shared: Path, tmp_path: Path) -> None:
    file = shared / "data" / "kensert2019" / "predictions.csv"
    assert run(tmp_path / "out", file, "--reference", "kensert2019") == 0
    board = pd.read_csv(tmp_path / "out" / "leaderboard.csv").set_index(CANDIDATE)
    assert board["k"].to_dict() == {"ResNet50": 100, "InceptionV3": 100, "InceptionResNetV2": 98}
    assert set(board["n"]) == {103}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["warnings"][0].startswith("267 of 309 rows are not renormalised")
    beside = {row[BACKBONE]: row for row in summary["beside_reference"]}
    assert {name: (row["both right"], row["both wrong"]) for name, row in beside.items()} == {
        "ResNet50": (100, 3),
        "InceptionV3": (100, 3),
        "InceptionResNetV2": (98, 5),
    }
    assert len(pd.read_csv(tmp_path / "out" / "reference.csv")) == 309
    assert set(pd.read_csv(tmp_path / "out" / "reference.csv")[LABEL]) == set(pd.read_csv(file)["moa"])
