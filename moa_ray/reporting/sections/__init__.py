"""The sections of the report, in the order of the page.

Adding one takes its module here, its template in ``templates/sections``, a place in `SECTIONS`, and its test.
"""

from moa_ray.reporting.section import Section
from moa_ray.reporting.sections.calibration import Calibration
from moa_ray.reporting.sections.conformal import Conformal
from moa_ray.reporting.sections.confusion import Confusion
from moa_ray.reporting.sections.epochs import Epochs
from moa_ray.reporting.sections.examples import Examples
from moa_ray.reporting.sections.leaderboard import Leaderboard
from moa_ray.reporting.sections.linear_probe import LinearProbe
from moa_ray.reporting.sections.mistakes import Mistakes
from moa_ray.reporting.sections.open_set import OpenSet
from moa_ray.reporting.sections.provenance import Provenance
from moa_ray.reporting.sections.published import Published
from moa_ray.reporting.sections.search import Search
from moa_ray.reporting.sections.uncertainty import Uncertainty

SECTIONS: tuple[type[Section], ...] = (
    Leaderboard,
    LinearProbe,
    Search,
    Epochs,
    Confusion,
    Calibration,
    Mistakes,
    Conformal,
    Uncertainty,
    OpenSet,
    Published,
    Examples,
    Provenance,
)

__all__ = ["SECTIONS", "Section"]
