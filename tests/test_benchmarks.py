"""The search benchmark's own machinery: every method runs, and the simulation is what the real Tune does."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks import search

from moa_ray.execution import cluster


@pytest.mark.slow
@pytest.mark.parametrize("name", list(search.METHODS))
def test_every_method_names_a_recipe_of_the_table(name: str) -> None:
    world = search.World(0)
    spent = search.simulate(search.METHODS[name](world, 3), slots=2)
    assert spent.named[-1][1] in world.regret
    assert spent.trials <= spent.epochs <= spent.trials * search.EPOCHS


def test_the_best_recipe_has_no_regret_and_folds_differ_more_than_recipes() -> None:
    world = search.World(1)
    assert min(world.regret.values()) == 0
    assert len(world.regret) == 72
    one = [world.losses(world.recipes[0], fold, search.EPOCHS)[0] for fold in search.FOLDS]
    assert max(one) - min(one) > 1


@pytest.fixture
def ray_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Ray's workers import the benchmark by its name.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with cluster.connect(None):
        yield


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_simulation_and_real_tune_agree() -> None:
    world = search.World(0)
    simulated = search.simulate(search.ours(world, 6), slots=1)
    real = search.through_tune(search.ours(world, 6), world)
    assert (real.trials, real.epochs, real.named[-1][1]) == (
        simulated.trials,
        simulated.epochs,
        simulated.named[-1][1],
    )
