"""Published results: what is written down is what was published, and laying beside counts treatment by treatment."""

from pathlib import Path

import pandas as pd
import pytest

from moa_ray.common.schema import COMPOUND, CONCENTRATION, LABEL, TREATMENT
from moa_ray.reporting import published_results


@pytest.fixture(scope="module")
def paper(shared: Path) -> pd.DataFrame:
    """The published probabilities, with the most probable label of each row."""
    table = pd.read_csv(shared / "data" / "kensert2019" / "predictions.csv")
    probabilities = table.filter(like="prob_")
    predicted = probabilities.idxmax(axis=1).str.removeprefix("prob_")
    names = {"compound": COMPOUND, "concentration": CONCENTRATION, "moa": LABEL}
    return table.drop(columns=probabilities.columns).rename(columns=names).assign(predicted=predicted)


@pytest.mark.parametrize(("backbone", "wrong"), [("ResNet50", 3), ("InceptionV3", 3), ("InceptionResNetV2", 5)])
def test_the_mistakes_written_down_are_those_of_the_published_probabilities(paper, backbone: str, wrong: int) -> None:
    rows = paper[(paper["backbone"] == backbone) & (paper["predicted"] != paper[LABEL])]
    mistakes = {(row[COMPOUND], row[CONCENTRATION]): row["predicted"] for row in rows.to_dict("records")}
    network = published_results.networks()[backbone]
    assert list(published_results.networks()) == ["ResNet50", "InceptionV3", "InceptionResNetV2"]
    assert network.wrong == mistakes
    assert (network.k, network.n) == (103 - wrong, 103)
    assert round(100 * network.k / network.n) == network.accuracy


def test_the_treatments_written_down_are_the_published_ones(paper: pd.DataFrame) -> None:
    expected = paper[[*TREATMENT, LABEL]].drop_duplicates().sort_values(TREATMENT, ignore_index=True)
    written = published_results.paper_treatments().sort_values(TREATMENT, ignore_index=True)
    pd.testing.assert_frame_equal(written, expected)


@pytest.mark.parametrize("backbone", ["ResNet50", "InceptionV3", "InceptionResNetV2"])
def test_the_published_predictions_beside_themselves_agree_everywhere(paper: pd.DataFrame, backbone: str) -> None:
    laid = published_results.beside(paper[paper["backbone"] == backbone], backbone, backbone)
    assert laid.n == 103
    assert laid.table["predicted"].equals(laid.table[published_results.PUBLISHED])
    assert (laid.counts[published_results.ONLY_HERE], laid.counts[published_results.ONLY_PUBLISHED], laid.p_value) == (
        0,
        0,
        1.0,
    )


def test_each_treatment_is_counted_once_by_its_outcome() -> None:
    rows = [
        ("taxol", 0.3, "Microtubule stabilizers", "Microtubule stabilizers"),
        ("colchicine", 0.03, "Microtubule destabilizers", "Microtubule destabilizers"),
        ("taxol", 1.0, "Microtubule stabilizers", "Epithelial"),
        ("latrunculin B", 1.0, "Actin disruptors", "DNA damage"),
        ("taxol", 3.0, "another label", "another label"),
        ("a compound of our own", 1.0, "Epithelial", "Epithelial"),
        ("taxol", 10.0, "Microtubule stabilizers", "Microtubule stabilizers"),
    ]
    laid = published_results.beside(pd.DataFrame(rows, columns=[*TREATMENT, LABEL, "predicted"]), "c", "ResNet50")
    outcomes = {
        (row[COMPOUND], row[CONCENTRATION]): row[published_results.OUTCOME] for row in laid.table.to_dict("records")
    }
    assert outcomes == {
        ("taxol", 0.3): published_results.BOTH,
        ("colchicine", 0.03): published_results.ONLY_HERE,
        ("taxol", 1.0): published_results.ONLY_PUBLISHED,
        ("latrunculin B", 1.0): published_results.NEITHER,
    }
    assert laid.counts == dict.fromkeys(published_results.OUTCOMES, 1)
    assert (laid.only_here, laid.only_published, laid.relabelled) == (2, 103 - 5, 1)


def test_a_backbone_that_was_not_published_stands_without() -> None:
    treatments = published_results.paper_treatments().assign(predicted="Epithelial")
    laid = published_results.beside(treatments, "c", "MobileNet")
    assert laid.network is None
    assert (laid.n, laid.only_here, laid.only_published) == (0, 103, 0)
