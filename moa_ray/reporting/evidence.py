"""What a report says of its headline's candidate besides: published results, doubt, sets of labels, calibration."""

import dataclasses

import pandas as pd

from moa_ray import calibration, conformal, page, published, sure, uncertainty
from moa_ray.conformal import CREDIBILITY, Conformal
from moa_ray.contents import Stored
from moa_ray.page import Content
from moa_ray.sure import Sure
from moa_ray.tables import BACKBONE, CANDIDATE, TREATMENT
from moa_ray.unsure import Unsure

# Published results ----------------------------------------------------------------------------------------------------


def with_reference(content: Content, reference: str | None) -> Content:
    """The content with the best candidate of each backbone laid beside published results, where these are asked for.

    Of a search the headline's candidate alone, on the treatments that the headline is about: what the others did was
    looked at to choose among them.
    """
    if reference is None or content.best is None:
        return dataclasses.replace(content, reference=reference)
    if content.search and content.search.scores:
        laid = [published.beside(content.judged, content.best[CANDIDATE], content.best[BACKBONE])]
    else:
        scored = content.leaderboard[content.leaderboard["n"] > 0].drop_duplicates(BACKBONE)
        laid = [
            published.beside(content.treatments_of(candidate), candidate, backbone)
            for candidate, backbone in zip(scored[CANDIDATE], scored[BACKBONE], strict=True)
        ]
    return dataclasses.replace(content, reference=reference, compared=laid)


def outcomes(content: Content) -> pd.DataFrame:
    """One row a candidate and treatment that was compared."""
    named = [one.table.assign(**{CANDIDATE: one.candidate, BACKBONE: one.backbone}) for one in content.compared]
    table = pd.concat(named, ignore_index=True)
    return table[[CANDIDATE, BACKBONE, *(name for name in table if name not in (CANDIDATE, BACKBONE))]]


# Uncertainty ----------------------------------------------------------------------------------------------------------


def measured(content: Content, unknown: pd.DataFrame) -> pd.DataFrame:
    """How unsure each candidate and method is of each treatment, known or unknown.

    unknown : treatments whose label their fold held out whole, as `metrics.treatments` makes them; may be empty
    """
    tables = [table for table in (_with_credibility(content), _believed(content, unknown)) if len(table)]
    both = pd.concat(tables, ignore_index=True) if tables else content.treatments
    return uncertainty.measures(both, content.samples)


def _with_credibility(content: Content) -> pd.DataFrame:
    """The treatments with the credibility of the headline's candidate, where there are conformal sets."""
    made = with_sets(content)
    return made[[name for name in made if name in content.treatments or name == CREDIBILITY]]


def _believed(content: Content, unknown: pd.DataFrame) -> pd.DataFrame:
    """Unknown treatments in the same way, calibrated by the known ones."""
    made = content.sure.conformal
    if unknown.empty or made is None or content.best is None:
        return unknown
    mine = unknown[unknown[CANDIDATE] == content.best[CANDIDATE]]
    return unknown.join(conformal.credibility(mine, made.treatments.table, made.settings, content.seed))


def with_uncertainty(content: Content, measured: pd.DataFrame) -> Content:
    """The content with how unsure the headline's candidate is, of what the headline is judged by."""
    if content.best is None:
        return content
    folds = content.search.confirm if content.search and content.search.scores else None
    return dataclasses.replace(content, unsure=Unsure.of(measured, content.best[CANDIDATE], folds, content.seed))


# How sure -------------------------------------------------------------------------------------------------------------


def with_sure(content: Content, settings: Conformal | None) -> Content:
    """The content with sets of labels for the treatments that the headline is about.

    Of a search these are of the folds that no choice saw: the candidate was chosen for low losses on the search folds,
    so its scores there are too good to calibrate with.
    """
    if content.best is None or settings is None:
        return content
    judged, given = content.judged, content.given is not None
    doubts = sure.doubts(settings, page.held_out(content), page.is_optimistic(content), given)
    made = sure.sets(judged, settings, content.seed, content.how, doubts)
    return dataclasses.replace(content, sure=Sure(made))


def with_sets(content: Content) -> pd.DataFrame:
    """The treatments with their p-values and sets; empty for candidates that are not the headline's."""
    made = content.sure.conformal
    if made is None or content.best is None:
        return content.treatments
    table = made.treatments.as_table(made.reached("treatment")).assign(**{CANDIDATE: content.best[CANDIDATE]})
    key = [CANDIDATE, *TREATMENT]
    own = [name for name in table if name not in content.treatments]
    return content.treatments.merge(table[[*key, *own]], on=key, how="left", validate="one_to_one")


def with_tiles(content: Content, stored: Stored | None) -> Content:
    """The content with tiles of each label and beside each of the worst treatments, where the tiles are at hand."""
    if stored is None:
        return content
    content, made = dataclasses.replace(content, tiles=stored.of_labels()), content.sure.conformal
    if made is None:
        return content
    worst = sure.worst(made)[TREATMENT].head(sure.MOST_TILES).itertuples(index=False, name=None)
    beside = dataclasses.replace(made, tiles=stored.of_treatments(worst))
    return dataclasses.replace(content, sure=dataclasses.replace(content.sure, conformal=beside))


# Calibration ----------------------------------------------------------------------------------------------------------


def with_calibration(content: Content) -> Content:
    """The content with the calibration of the headline's candidate on the treatments that the headline is about."""
    if content.best is None or content.judged.empty:
        return content
    return dataclasses.replace(content, calibration=calibration.calibrate(content.judged))
