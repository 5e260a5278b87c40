"""The root of a screen: links are followed by permission alone, and the permission goes where the root goes."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from screen_files import tiff

from moa_ray.common.errors import InputError
from moa_ray.screens.reading import read_field
from moa_ray.screens.root_folder import LinkedFolder, folder_inside, path_inside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tiff(tmp_path / "out/a.tif")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/P1").symlink_to(tmp_path / "out")
    return tmp_path / "root"


def test_link_needs_permission_which_other_processes_get_with_the_root(root: Path) -> None:
    with pytest.raises(InputError, match=r"P1/a\.tif: leads out of .* symbolic link; screen.follow_links: true"):
        path_inside(root, "P1/a.tif")
    permitted = pickle.loads(pickle.dumps(LinkedFolder(root).resolve()))
    np.testing.assert_array_equal(read_field(permitted, ["P1/a.tif"])[0], np.arange(12).reshape(3, 4))


@pytest.mark.parametrize("location", ["../out/a.tif", "P1/../../out/a.tif", "/etc/passwd", "a\0.tif"])
def test_permission_for_links_is_none_for_paths(root: Path, location: str) -> None:
    for folder in (root, LinkedFolder(root)):
        with pytest.raises(InputError, match="leads out of"):
            path_inside(folder, location)


def test_root_that_is_a_link_needs_no_permission(root: Path) -> None:
    tiff(root / "b.tif")
    link = root.with_name("link")
    link.symlink_to(root)
    assert path_inside(link, "b.tif") == root / "b.tif"


def test_absolute_folder_is_inside_or_not(root: Path) -> None:
    assert folder_inside(root, str(root)) == "."
    assert folder_inside(root, f"{root}/P2/x") == "P2/x"
    assert folder_inside(root, str(root.parent)) is None
    assert folder_inside(root, f"{root}x") is None
    assert folder_inside(root, f"/nowhere/../{root}") is None
