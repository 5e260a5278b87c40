"""Which plane of a file is meant: axes, choices, projections."""

import itertools
from typing import Any

import numpy as np
import pytest

from moa_ray.common.errors import InputError
from moa_ray.config.planes import Plane
from moa_ray.screens.planes import Axes, image_identity, places, projected, select

STACK = Axes({"C": 3, "Z": 4, "T": 2}, ("DNA", "ER", "Actin"))


@pytest.mark.parametrize("plane", [None, Plane(), Plane(channel=0), Plane(z="max", time=1)])
@pytest.mark.parametrize("sizes", [{}, {"C": 1, "Z": 1}, {"S": 1}])
def test_one_plane_needs_no_choice_and_bears_one(sizes: dict[str, int], plane: Plane | None) -> None:
    if plane == Plane(z="max", time=1):
        with pytest.raises(InputError, match="holds 1 plane; there is no time 1, counted from 0"):
            select(Axes(sizes), plane)
        return
    assert select(Axes(sizes), plane) == dict.fromkeys(sizes, 0)


@pytest.mark.parametrize(
    ("axes", "plane", "message"),
    [
        (Axes({"C": 3}), None, r"holds 3 planes \(3 channels\); .* as in \{path: COLUMN, channel: 0\}"),
        (STACK, None, r"24 planes \(3 channels: DNA, ER, Actin x 4 planes in depth x 2 points in time\)"),
        (STACK, Plane(channel=0), r"as in \{path: COLUMN, project: max, time: 0\}"),
        (STACK, Plane("DNA", "max"), r"as in \{path: COLUMN, time: 0\}"),
        (Axes({"P": 5}), None, r"holds 5 planes \(5 pages\); .* channel: 0\}, or project: max, or time: 0"),
        (Axes({"P": 5}), Plane(0, "max"), "5 pages"),
        (Axes({"S": 3}, ("red", "green", "blue")), None, r"several channels \(3 samples a pixel: red, green, blue\)"),
        (Axes({"C": 2, "S": 3}), Plane(channel=0), "channels of several samples each are not read"),
        (Axes({"C": 3}), Plane(channel=3), "there is no channel 3, counted from 0"),
        (Axes({"P": 3}), Plane(channel=3), "there is no page 3, counted from 0"),
        (Axes({"Z": 3}), Plane(z=3), "there is no z 3, counted from 0"),
        (Axes({"C": 3}), Plane(channel="DNA"), "it names no channels, so 'DNA' is not known"),
        (Axes({"C": 2}, ("a", "a")), Plane(channel="a"), "2 channels are named 'a'"),
        (STACK, Plane("Aktin", "max", 0), "no channel is named 'Aktin'; did you mean 'Actin'"),
    ],
)
def test_what_is_left_open_or_is_not_there_is_named(axes: Axes, plane: Plane | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        select(axes, plane)


@pytest.mark.parametrize(
    ("axes", "plane", "steps"),
    [
        (STACK, Plane("ER", 2, "mean"), {"C": 1, "Z": 2, "T": "mean"}),
        (Axes({"P": 5}), Plane(channel=4), {"P": 4}),
        (Axes({"P": 5}), Plane(z="max"), {"P": "max"}),
        (Axes({"P": 5}), Plane(time=3), {"P": 3}),
        (Axes({"C": 2, "P": 5}), Plane(1, "mean"), {"C": 1, "P": "mean"}),
        (Axes({"S": 3}, ("red", "green", "blue")), Plane("green"), {"S": 1}),
        (Axes({"S": 3}, ("red", "green", "blue")), Plane("grey"), {"S": "grey"}),
    ],
)
def test_choice_says_what_is_taken_along_each_axis(axes: Axes, plane: Plane, steps: dict[str, Any]) -> None:
    assert select(axes, plane) == steps


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
@pytest.mark.parametrize(("z", "time"), itertools.product([0, 3, "max", "mean"], repeat=2))
def test_projection_is_that_of_a_loop_over_pixels(dtype: str, z: Any, time: Any) -> None:
    stack = np.random.default_rng(0).integers(0, 200, (4, 4, 3, 5)).astype(dtype)  # time, depth, height, width
    stack[stack == 7] = 8
    axes = Axes({"T": 4, "Z": 4})
    steps = select(axes, Plane(z=z, time=time))
    read = projected(axes, steps, lambda place: stack[place["T"], place["Z"]].copy())
    reductions: dict[Any, Any] = {"max": max, "mean": lambda values: sum(values) / len(values)}
    for row, column in np.ndindex(3, 5):
        depths = [list(map(float, stack[t, :, row, column])) for t in range(4)]
        by_time = [reductions[z](values) if z in reductions else values[z] for values in depths]
        expected = reductions[time](by_time) if time in reductions else by_time[time]
        rounded = expected if dtype == "float32" else round(expected)
        assert read[row, column] == pytest.approx(rounded)
    assert read.dtype == dtype
    taken = [range(4) if step in reductions else [step] for step in (time, z)]
    assert [(place["T"], place["Z"]) for place in places(axes, steps)] == list(itertools.product(*taken))


def test_two_planes_of_a_file_are_two_images() -> None:
    assert image_identity("a.tif", Plane(0)) != image_identity("a.tif", Plane(1))
    assert image_identity("a.tif", Plane(0)) == image_identity("a.tif", Plane(0))
    assert image_identity("a.tif") != image_identity("b.tif")
