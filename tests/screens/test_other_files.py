"""PNG, JPEG and the like of several samples or frames, and those that are cut short."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from screen_files import archive

from moa_ray.common.errors import InputError
from moa_ray.config.planes import Plane
from moa_ray.screens.checks import check_files
from moa_ray.screens.image_files import image_header, read_image

COLOURS = np.random.default_rng(0).integers(0, 256, (8, 9, 4)).astype(np.uint8)


def written(picture: Image.Image, form: str, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    picture.save(file, form, **options)
    file.seek(0)
    return file


@pytest.mark.parametrize(("mode", "samples"), [("RGB", 3), ("RGBA", 4), ("LA", 2)])
def test_sample_is_chosen(mode: str, samples: int) -> None:
    content = written(Image.fromarray(COLOURS[..., :samples], mode), "PNG").getvalue()
    for read in (read_image, image_header):
        with pytest.raises(InputError, match=rf"holds several channels \({samples} samples a pixel"):
            read(io.BytesIO(content))
    for number in range(samples):
        np.testing.assert_array_equal(read_image(io.BytesIO(content), Plane(number)), COLOURS[..., number])
    assert image_header(io.BytesIO(content), None, Plane(1)) == ((8, 9), "uint8")


def test_grey_in_three_samples_is_checked_to_be_so() -> None:
    grey = np.repeat(COLOURS[..., :1], 3, axis=2)
    np.testing.assert_array_equal(read_image(written(Image.fromarray(grey), "PNG"), Plane("grey")), grey[..., 0])
    with pytest.raises(InputError, match="red, green and blue differ"):
        read_image(written(Image.fromarray(COLOURS[..., :3]), "PNG"), Plane("grey"))


def test_colour_of_a_palette_is_chosen() -> None:
    picture = Image.fromarray(np.arange(72, dtype=np.uint8).reshape(8, 9)).convert("P")
    picture.putpalette(COLOURS[..., :3].ravel()[: 72 * 3].tolist())
    for form in ("PNG", "BMP"):
        file = written(picture, form)
        np.testing.assert_array_equal(read_image(file, Plane(2)), COLOURS[..., 2])


def test_frames_are_pages() -> None:
    frames = [Image.fromarray(np.full((8, 9), level, np.uint8)) for level in (10, 90, 50)]
    for form in ("PNG", "GIF"):
        content = written(frames[0], form, save_all=True, append_images=frames[1:]).getvalue()
        with pytest.raises(InputError, match=r"holds 3 planes \(3 pages\)"):
            image_header(io.BytesIO(content))
        for plane, level in ((Plane(channel=2), 50), (Plane(z="max"), 90)):
            assert set(read_image(io.BytesIO(content), plane).ravel()) == {level}
            assert image_header(io.BytesIO(content), None, plane) == ((8, 9), "uint8")


def test_colours_of_16_bits_are_refused_for_half_would_be_lost() -> None:
    import imagecodecs

    content = imagecodecs.png_encode(COLOURS[..., :3].astype(np.uint16) * 200)
    with pytest.raises(InputError, match="colours of 16 bits, of which 8 would be lost"):
        image_header(io.BytesIO(content), None, Plane(0))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF"])
def test_file_cut_short_is_found_by_its_end(tmp_path: Path, form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60)).astype(np.uint8)
    content = written(Image.fromarray(pixels), form).getvalue()
    (tmp_path / "whole").write_bytes(content)
    (tmp_path / "padded").write_bytes(content + bytes(5000))
    (tmp_path / "cut").write_bytes(content[:-1500])
    archive(tmp_path / "z.zip", whole=tmp_path / "whole")
    (problem,) = check_files(tmp_path, ["whole", "padded", "cut", "z.zip!whole"])
    assert problem.message.startswith("1 image files cannot be read: cut: unreadable")
