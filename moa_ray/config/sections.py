"""The short sections of a sweep file: ``folds``, ``validation``, ``predict`` and ``tracking``."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from moa_ray.config.settings import Name, Settings

Share = Annotated[float, Field(gt=0, lt=1)]


class Folds(Settings):
    """What is held out: one column, or several of which training shares no value with the held-out group."""

    hold_out: str | Annotated[tuple[str, ...], Field(min_length=1)] = "compound"
    """`compound`, `cell_line`, `week`, `[compound, week]` (training shares neither), any `Metadata_` column, or
    `label`, which holds out whole labels, and beside each compounds of others."""
    search: Literal["one_per_label", "all"] | Annotated[tuple[str, ...], Field(min_length=1)] = "one_per_label"
    """The folds that a search may look at: one held-out group for each label, all, or a list of groups; the others
    confirm. A grid has no such part: it trains every fold."""
    min_compounds: Annotated[int, Field(ge=2)] | None = None
    """The fewest compounds that a label must have to be held out. Treatments of labels with fewer are not scored, and
    the report names them; null asks for no number."""
    below: Literal["leave_out", "train_only"] = "leave_out"
    """What becomes of labels with fewer compounds than `min_compounds`: `leave_out` takes their fields out of the
    screen, `train_only` keeps them as labels that are learnt and never held out."""

    @model_validator(mode="after")
    def _is_asked_for(self) -> "Folds":
        if self.below == "train_only" and self.min_compounds is None:
            raise ValueError(
                "below: train_only says what becomes of labels below min_compounds, which is null; set it to 2"
            )
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns held out, the first of which makes the groups."""
        return (self.hold_out,) if isinstance(self.hold_out, str) else self.hold_out


class Score(Settings):
    """What counts as one in the headline, the leaderboard, intervals, tests and a search's objective."""

    unit: Literal["treatment", "well", "compound"] = "treatment"
    """`treatment`: a compound at a concentration, over its wells. `well`: each well by itself. `compound`: all wells
    of a compound, whatever the concentration."""


class Validation(Settings):
    """The part of the training wells that is watched, not learnt from: whole wells, spread over treatments."""

    by: Literal["well"] = "well"
    """Unit that is watched whole."""
    share: Share = 0.15
    """Share of the training wells."""


class Predict(Settings):
    """How often the held-out tiles are predicted besides, to see how sure a network is; null does not."""

    mc_dropout: Annotated[int, Field(ge=2)] | None = None
    """Samples of Monte-Carlo dropout: each by a network thinned by its dropout layers."""
    laplace: Annotated[int, Field(ge=2)] | None = None
    """Samples of the Laplace approximation: each by a head drawn around the trained one, where `freeze: all`."""

    @property
    def samples(self) -> dict[str, int]:
        """How many samples are wanted, by method."""
        wanted = {"mc_dropout": self.mc_dropout, "laplace": self.laplace}
        return {method: count for method, count in wanted.items() if count is not None}


class Tracking(Settings):
    """Where MLflow records."""

    uri: str | None = None
    """MLflow's tracking URI; null means SQLite in OUT."""
    experiment: Name | None = None
    """Name of MLflow's experiment; null takes the study's."""
