"""What was published for BBBC021's 103 treatments, and a candidate laid beside it treatment by treatment."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from moa_ray.intervals import mcnemar
from moa_ray.metrics import PREDICTED
from moa_ray.tables import COMPOUND, CONCENTRATION, LABEL, TREATMENT, require_columns, require_unique

NAMES = {"kensert2019": "Kensert et al. 2019"}  # what a sweep file may ask for

OUTCOME, THEIRS = "outcome", "published"
BOTH, ONLY_HERE, ONLY_PUBLISHED, NEITHER = "both right", "only here right", "only published right", "both wrong"
OUTCOMES = (BOTH, ONLY_HERE, ONLY_PUBLISHED, NEITHER)


# Kensert et al. 2019 --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """One of the paper's networks.

    accuracy : as the paper prints it, percent
    wrong : what it said of each treatment that it got wrong, by compound and concentration (µmol/L)
    """

    backbone: str
    accuracy: int
    wrong: Mapping[tuple[str, float], str]

    @property
    def n(self) -> int:
        """All treatments."""
        return len(paper_treatments())

    @property
    def k(self) -> int:
        """Treatments right."""
        return self.n - len(self.wrong)


SOURCE = (
    "Kensert, Harrison and Spjuth, SLAS Discovery 24(4):466-475, 2019, doi:10.1177/2472555218818756; the treatments by "
    "the most probable label of the probabilities published with its code, github.com/pharmbio/kensert_CNN"
)
PROTOCOL = "leave one compound out, 38 folds; median over fields, then replicates"

NETWORKS = {
    network.backbone: network
    for network in (
        Network(
            "ResNet50",
            97,
            {
                ("colchicine", 0.03): "Kinase inhibitors",
                ("chlorambucil", 10.0): "Kinase inhibitors",
                ("latrunculin B", 1.0): "Epithelial",
            },
        ),
        Network(
            "InceptionV3",
            97,
            {
                ("colchicine", 0.03): "DNA damage",
                ("ALLN", 3.0): "DNA replication",
                ("latrunculin B", 1.0): "Epithelial",
            },
        ),
        Network(
            "InceptionResNetV2",
            95,
            {
                ("colchicine", 0.03): "Kinase inhibitors",
                ("MG-132", 0.1): "DNA replication",
                ("MG-132", 3.0): "Cholesterol-lowering",
                ("methotrexate", 10.0): "Protein synthesis",
                ("latrunculin B", 1.0): "Epithelial",
            },
        ),
    )
}

# Mechanism, compound, concentrations in µmol/L. Source: Ljosa et al. 2013, the annotation of BBBC021v1.
_TREATMENTS: dict[str, dict[str, tuple[float, ...]]] = {
    "Actin disruptors": {"cytochalasin B": (10, 30), "cytochalasin D": (0.3,), "latrunculin B": (1, 3)},
    "Aurora kinase inhibitors": {
        "AZ-A": (0.1, 0.3, 1, 3, 10, 30),
        "AZ258": (0.1, 0.3, 1),
        "AZ841": (0.1, 0.3, 1),
    },
    "Cholesterol-lowering": {"mevinolin/lovastatin": (1.5, 5, 15), "simvastatin": (2, 6, 20)},
    "DNA damage": {
        "chlorambucil": (10,),
        "cisplatin": (10,),
        "etoposide": (1, 3, 10),
        "mitomycin C": (0.1, 0.3, 1, 3),
    },
    "DNA replication": {
        "camptothecin": (0.003, 0.01, 0.03),
        "floxuridine": (10, 30),
        "methotrexate": (10,),
        "mitoxantrone": (0.003, 0.01),
    },
    "Eg5 inhibitors": {"AZ-C": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1), "AZ138": (0.03, 0.1, 0.3, 1, 3)},
    "Epithelial": {"AZ-J": (1, 3, 10), "AZ-U": (1, 3, 10), "PP-2": (3, 10)},
    "Kinase inhibitors": {"PD-169316": (3, 10), "alsterpaullone": (1, 3), "bryostatin": (0.3,)},
    "Microtubule destabilizers": {
        "colchicine": (0.03,),
        "demecolcine": (0.3, 1, 3, 10),
        "nocodazole": (1, 3),
        "vincristine": (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
    },
    "Microtubule stabilizers": {"docetaxel": (0.03, 0.1, 0.3), "epothilone B": (0.1, 0.3, 1), "taxol": (0.3, 1, 3)},
    "Protein degradation": {
        "ALLN": (3, 100),
        "MG-132": (0.1, 3),
        "lactacystin": (10,),
        "proteasome inhibitor I": (0.1, 3),
    },
    "Protein synthesis": {"anisomycin": (0.3, 1), "cyclohexamide": (5, 15, 50), "emetine": (0.1, 0.3, 1)},
}


def paper_treatments() -> pd.DataFrame:
    """The 103 treatments that every network of the paper was judged on: compound, concentration, label."""
    rows = [
        (compound, float(dose), label)
        for label, compounds in _TREATMENTS.items()
        for compound, doses in compounds.items()
        for dose in doses
    ]
    return pd.DataFrame(rows, columns=[*TREATMENT, LABEL])


# Side by side ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beside:
    """A candidate's treatments laid beside a published network's.

    network : None where nothing was published for the backbone
    table : one row a treatment that both have, with one label: compound, concentration, label, predicted (here),
        published (what the network said), outcome
    only_here, only_published : treatments that the other one lacks
    relabelled : treatments that both have under different labels, and that are not compared
    """

    candidate: str
    backbone: str
    network: Network | None
    table: pd.DataFrame
    only_here: int = 0
    only_published: int = 0
    relabelled: int = 0

    @property
    def n(self) -> int:
        """Treatments compared."""
        return len(self.table)

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many treatments had each outcome."""
        return {outcome: int((self.table[OUTCOME] == outcome).sum()) for outcome in OUTCOMES}

    @property
    def p_value(self) -> float:
        """Of the exact McNemar test, two-sided: 1 where no treatment tells the two apart."""
        return mcnemar(self.counts[ONLY_HERE], self.counts[ONLY_PUBLISHED])


def beside(treatments: pd.DataFrame, candidate: str, backbone: str) -> Beside:
    """Lay one candidate's treatments beside the paper's network of the same backbone.

    treatments : of this candidate alone: compound, concentration, label, predicted
    """
    require_columns(treatments, [*TREATMENT, LABEL, PREDICTED], "treatments")
    require_unique(treatments, TREATMENT, "treatments")
    network = NETWORKS.get(backbone)
    paper = paper_treatments().rename(columns={LABEL: "_label"})
    if network is None:
        paper = paper.iloc[:0]
    joined = treatments[[*TREATMENT, LABEL, PREDICTED]].merge(paper, on=TREATMENT, how="outer", indicator=True)
    both = joined[joined["_merge"] == "both"]
    same = both[both[LABEL] == both["_label"]]
    said = network.wrong if network else {}
    keys = zip(same[COMPOUND], same[CONCENTRATION], same[LABEL], strict=True)
    theirs = [said.get((compound, dose), label) for compound, dose, label in keys]
    table = same[[*TREATMENT, LABEL, PREDICTED]].assign(**{THEIRS: pd.Series(theirs, index=same.index, dtype=str)})
    right, their_right = (table[name] == table[LABEL] for name in (PREDICTED, THEIRS))
    outcome = np.select([right & their_right, right, their_right], [BOTH, ONLY_HERE, ONLY_PUBLISHED], NEITHER)
    return Beside(
        candidate,
        backbone,
        network,
        table.assign(**{OUTCOME: pd.Series(outcome, index=table.index, dtype=str)}).reset_index(drop=True),
        only_here=int((joined["_merge"] == "left_only").sum()),
        only_published=int((joined["_merge"] == "right_only").sum()),
        relabelled=len(both) - len(same),
    )


# Other work -----------------------------------------------------------------------------------------------------------


class Figure(NamedTuple):
    """An accuracy over BBBC021's treatments that others published, percent.

    nsc : matched to the nearest treatment of another compound; nscb : and of another week besides; None: not given
    """

    work: str
    nsc: float
    nscb: float | None
    protocol: str
    source: str


_NEAREST = "nearest treatment profile that is not of the same compound"

OTHERS = (
    Figure(
        "Ljosa 2013, factor analysis",
        94,
        None,
        _NEAREST,
        "Ljosa et al., J. Biomol. Screen. 18(10):1321, 2013",
    ),
    Figure(
        "Singh 2014, illumination correction",
        90,
        None,
        _NEAREST,
        "Singh et al., J. Microsc. 256(3):231, 2014",
    ),
    Figure(
        "Pawlowski 2016, generic deep features",
        91,
        None,
        _NEAREST,
        "Pawlowski et al., bioRxiv 085118, 2016",
    ),
    Figure(
        "Ando 2017, deep metric features",
        96,
        None,
        _NEAREST,
        "Ando et al., bioRxiv 161422, 2017",
    ),
    Figure(
        "Caicedo 2018, weakly supervised",
        97.1,
        87.0,
        _NEAREST + "; for NSCB nor of the same week",
        "Caicedo et al., CVPR 2018; as run again in DeepProfiler",
    ),
    Figure(
        "Microsnoop 2023, self-supervised",
        97.1,
        96.7,
        _NEAREST + "; for NSCB nor of the same week",
        "Xun et al., Microsnoop, 2023",
    ),
)
