"""Settings of conformal prediction."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from moa_ray.config.numbers import SECTION, Above0Below1

Unit = Literal["compound", "treatment"]
Score = Literal["one_minus_p", "aps"]


@dataclass(frozen=True)
class ConformalSettings:
    """Which sets of labels are made for each treatment."""

    __pydantic_config__: ClassVar[ConfigDict] = SECTION

    alphas: tuple[Above0Below1, ...] = (0.05, 0.1, 0.2)
    """Each gives a set for every treatment; smaller ones give larger sets."""
    score: Score = "one_minus_p"
    """`one_minus_p`: 1 - the label's probability. `aps`: the probability of all likelier labels and a part of its own,
    drawn by the seed (Romano, Sesia and Candès 2020), which gives hard treatments larger sets than easy ones."""
    by_label: bool = True
    """Calibrate a label that has enough compounds by these alone, so that what holds, holds for the label too."""
    unit: Unit = "compound"
    """`compound`: each counts once. `treatment`: each counts, as if they were independent, which they are not."""

    def __post_init__(self) -> None:
        if not self.alphas or not all(0 < alpha < 1 for alpha in self.alphas):
            raise ValueError(f"alphas are shares between 0 and 1, at least one, but got {list(self.alphas)}")
        object.__setattr__(self, "alphas", tuple(sorted(set(self.alphas))))
