"""Columns of paths: what other programs and machines write becomes a path below the root, and nothing else does."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from screen_files import table_rows, table_sweep

from moa_ray.common.errors import InputError
from moa_ray.common.uri import place
from moa_ray.config import sweep_file
from moa_ray.config.planes import ImageSettings
from moa_ray.screens.image_columns import image_locations, path_columns_of
from moa_ray.screens.opening import open_screen
from moa_ray.screens.screen import Screen


def located(root: Path, path: str, **more: Any) -> Any:
    """The location of the one cell of a table."""
    return image_locations(pd.DataFrame({"path": [path]}), {"DNA": "path"}, root, **more)["Path_DNA"].item()


@pytest.mark.parametrize(
    "written",
    [
        "P 1/a.tif",
        "./P 1\\a.tif",
        "{root}/P 1/a.tif",
        "{root}//P 1/./a.tif",
        "file:{root}/P 1/a.tif",
        "file://{root}/P%201/a.tif",
        "FILE://localhost{root}/P 1/a.tif",
    ],
)
def test_path_that_lies_below_the_root_is_relative_to_it(tmp_path: Path, written: str) -> None:
    assert located(tmp_path, written.format(root=tmp_path)) == "P 1/a.tif"


def test_absolute_path_is_known_by_the_real_folder_and_by_the_link_that_the_root_is(tmp_path: Path) -> None:
    (tmp_path / "real/P1").mkdir(parents=True)
    root = tmp_path / "link"
    root.symlink_to(tmp_path / "real")
    (tmp_path / "other").symlink_to(tmp_path / "real")
    for above in ("real", "link", "other"):
        assert located(root, f"{tmp_path}/{above}/P1/a.tif") == "P1/a.tif"


@pytest.mark.parametrize(
    ("written", "strip"),
    [
        ("D:\\Screen\\P1\\a.tif", ["d:\\screen\\"]),
        ("d:/screen/P1/a.tif", ["D:\\Screen"]),
        ("file:///D:/screen/P1/a.tif", ["D:\\screen"]),
        ("file:D:\\screen\\P1\\a.tif", ["D:\\screen"]),
        ("\\\\server\\share\\P1\\a.tif", ["//Server/share"]),
        ("file://server/share/P1/a.tif", ["\\\\server\\share"]),
        ("/mnt/old/screen/P1/a.tif", ["/mnt/old", "/mnt/old/screen/"]),
        ("s3://bucket/screen/P1/a.tif", ["s3://bucket/screen"]),
        ("screen/P1/a.tif", ["screen"]),
    ],
)
def test_folder_of_another_machine_is_cut_off(tmp_path: Path, written: str, strip: list[str]) -> None:
    assert located(tmp_path, written, strip=strip) == "P1/a.tif"


def test_prefix_ends_with_a_folder_and_a_path_of_this_machine_has_case(tmp_path: Path) -> None:
    assert located(tmp_path, "D:/screen2/a.tif", strip=["D:/screen"]) == "D:/screen2/a.tif"
    assert located(tmp_path, "/mnt/Old/a.tif", strip=["/mnt/old"]) == "/mnt/Old/a.tif"


def test_address_in_the_bucket_of_the_screen_is_relative_to_it(tmp_path: Path) -> None:
    source = place("s3://bucket/screen?region=eu-west-1")
    assert located(tmp_path, "s3://bucket/screen/P1/a.tif", source=source) == "P1/a.tif"
    assert located(tmp_path, "s3://bucket/other/a.tif", source=source) == "s3://bucket/other/a.tif"


def test_member_of_an_archive_is_found_by_its_absolute_path(tmp_path: Path) -> None:
    assert located(tmp_path, f"{tmp_path}/z.zip!P1/a.tif") == "z.zip!P1/a.tif"


def test_folder_and_name_are_joined_and_an_empty_name_is_missing(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "folder": ["P1", f"{tmp_path}/P1/", None, "P1", "P1"],
            "name": ["a.tif", " b.tif", "c.tif", "", f"{tmp_path}/d.tif"],
        }
    )
    of_channels = {"DNA": ("folder", "name"), "ER": ImageSettings(path=("folder", "name"), channel=1)}
    locations = image_locations(table, of_channels, tmp_path)
    assert locations["Path_DNA"].fillna("missing").tolist() == ["P1/a.tif", "P1/b.tif", "c.tif", "missing", "d.tif"]
    assert locations["Path_ER"].equals(locations["Path_DNA"])
    assert path_columns_of(of_channels["ER"]) == ["folder", "name"]


# In a screen ----------------------------------------------------------------------------------------------------------


def opened(folder: Path, paths: list[str] | None = None, **screen: Any) -> Screen:
    """A screen whose table names its images by `paths`, each with NAME in the place of the file."""
    rows = table_rows()
    plain = table_sweep(folder, rows, screen=screen)
    root = folder / "screen"
    names = [path.replace("NAME", name) for path, name in zip(paths or ["NAME"] * len(rows), rows["path"], strict=True)]
    rows.assign(path=names, folder=str(root), file=rows["path"]).to_csv(root / "fields.csv", index=False)
    return open_screen(sweep_file.check(plain, "sweep.yaml"), root)


def errors(screen: Screen) -> list[str]:
    return [problem.message for problem in screen.problems if problem.severity == "error"]


def test_paths_of_cellprofilers_load_data_open(tmp_path: Path) -> None:
    screen = opened(tmp_path, images={"DNA": ["folder", "file"]})
    assert screen.problems == ()
    assert screen.fields["Path_DNA"].iloc[0] == "A01.tif"


def test_paths_that_lead_elsewhere_say_what_may_be_done(tmp_path: Path) -> None:
    here = ["NAME"] * 8
    names = ["D:\\other\\NAME", "file:///etc/NAME", "../NAME", f"file:{tmp_path}/screen/%2e%2e/NAME"]
    plain, foreign = sorted(errors(opened(tmp_path, [*here, *names], strip="D:\\screen")))
    assert foreign.startswith(
        f"2 image paths lead out of the screen's root {tmp_path}/screen; cut off what does not lie"
    )
    assert "screen.strip" in foreign
    assert "P1 A09 1: D:/other/A09.tif, P1 A10 1: /etc/A10.tif" in foreign
    assert plain == (
        f"2 image paths lead out of the screen's root {tmp_path}/screen: P1 A11 1: ../A11.tif, P1 A12 1: ../A12.tif"
    )


def test_table_of_windows_opens_with_strip(tmp_path: Path) -> None:
    assert opened(tmp_path, ["D:\\Screen\\NAME"] * 12, strip="D:\\screen").problems == ()


def test_folder_that_is_a_link_is_read_where_the_sweep_file_permits_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "screen").mkdir()
    (tmp_path / "screen/P1").symlink_to(tmp_path / "elsewhere")
    rows = table_rows()
    rows["path"] = "P1/" + rows["path"]
    plain = table_sweep(tmp_path, rows)
    (message,) = errors(open_screen(sweep_file.check(plain, "sweep.yaml"), tmp_path / "screen"))
    assert "by a symbolic link; screen.follow_links: true follows it: P1 A01 1: P1/A01.tif" in message
    plain["screen"]["follow_links"] = True
    screen = open_screen(sweep_file.check(plain, "sweep.yaml"), tmp_path / "screen")
    assert screen.problems == ()
    rows.assign(path="../elsewhere/A01.tif").to_csv(tmp_path / "screen/fields.csv", index=False)
    message, _ = errors(open_screen(sweep_file.check(plain, "sweep.yaml"), tmp_path / "screen"))
    assert message.startswith("12 image paths lead out of the screen's root")


@pytest.mark.parametrize(
    ("screen", "message"),
    [
        ({"images": {"DNA": ["folder"]}}, r"screen.images.DNA: two columns, .*, but got \['folder'\]"),
        ({"images": {"DNA": {"path": ["folder", "file", "more"]}}}, "screen.images.DNA.path: two columns"),
        ({"images": {"DNA": ["folder", "fil"]}}, "column fil is missing"),
        ({"strip": 3}, "screen.strip: .* but got 3"),
        ({"follow_link": True}, "unknown key 'follow_link'; did you mean 'follow_links'"),
    ],
)
def test_wrong_key_is_named(tmp_path: Path, screen: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(tmp_path, **screen)
