"""What is left out is named with the reason."""

import dataclasses

import pandas as pd
import pytest

from moa_ray.common.schema import COMPOUND, CONCENTRATION, LABEL
from moa_ray.reporting import page
from moa_ray.reporting.headline import headline
from moa_ray.reporting.sections.provenance import Provenance
from reporting.evidence_factory import EVIL, evidence, visible


@pytest.mark.usefixtures("undrawn")
def test_treatments_that_cannot_be_scored_are_named_with_the_reason() -> None:
    lost = pd.DataFrame([("taxol", 0.3, "X", "week=1", f"no field left {EVIL}")])
    lost = lost.set_axis([COMPOUND, CONCENTRATION, LABEL, "fold", "reason"], axis=1)
    lacking = dataclasses.replace(evidence(), n_treatments=5, unscored=lost)
    html = page.render(lacking)
    assert "4 of 5 treatments can be scored" in headline(lacking)
    assert "4 of 5 treatments can be scored" in visible(html)
    assert Provenance(lacking).unscored.rows == [["taxol", "0.3", "X", f"no field left {EVIL}"]]
    assert EVIL not in html
    assert "taxol 0.3 X no field left" in visible(html)
    assert "can be scored" not in visible(page.render(evidence()))
