"""How fast are tiles made, and in how much memory?

    python -m tests.benchmarks.prepare                        # 200 fields: prepare.md
    python -m tests.benchmarks.prepare --fields 40 --once     # quicker, and less sure

The screen is made anew in a temporary folder: fields of 1024 x 1280 pixels, three uncompressed TIFF files of 16 bits
each, in BBBC021's layout. Background, cells and the noise of photons are drawn for a few scenes; every field is one of
them, shifted. One field in ten is a control. All files lie in the page cache before anything is timed.

prepare  `tiles.prepare` with a thread for each core, one image size, from the screen to a whole store on disk.
script   the natural script, as the paper's code does it: a plate at a time in memory as float32, one thread, a PNG a
         tile.
tifffile reads and decodes the same files and does nothing with them, by a pool of threads or of processes (started
         beforehand), one for each core, whichever is faster.

Those three take turns; the median of each counts. Memory is the highest that a process of its own has ever held.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from moa_ray.common.schema import CONTROL, FIELD_KEY, PLATE
from moa_ray.config.preparation import Preparation
from moa_ray.screens import bbbc021
from moa_ray.screens.screen import Screen
from moa_ray.tiles import build
from moa_ray.tiles.workers import ThreadExecutor

from .results import Row, write

HEIGHT, WIDTH = 1024, 1280
A_PLATE = 40  # fields, of which 4 are controls
SMALL = 20  # fields of the small screen
SCENES = 6
QUICK = 3  # turns of what takes less than a second, for each of what takes half a minute
WORKERS = os.cpu_count() or 1
SIZE = 224

Planes = dict[str, NDArray[np.uint16]]


# The screen -----------------------------------------------------------------------------------------------------------


def make_screen(root: Path, fields: int, height: int = HEIGHT, width: int = WIDTH) -> None:
    """Plates of 40 fields and BBBC021's two tables."""
    rng = np.random.default_rng(fields)
    scenes = [_scene(rng, height, width) for _ in range(SCENES)]
    rows = []
    for number in range(fields):
        plate, place = f"Week1_{10000 + number // A_PLATE}", number % A_PLATE
        control = place % 10 == 0
        well = f"{'BCDEFG'[place // 10]}{2 + place % 10:02}"
        row: dict[str, object] = {"Image_Metadata_Plate_DAPI": plate, "Image_Metadata_Well_DAPI": well, "Replicate": 1}
        row |= {
            "Image_Metadata_Compound": "DMSO" if control else f"compound{place % 3}",
            "Image_Metadata_Concentration": 0.0 if control else 1.0,
        }
        row |= _write_field(root, plate, well, _shifted(scenes[number % SCENES], rng), rng)
        rows.append(row)
    pd.DataFrame(rows).to_csv(root / "BBBC021_v1_image.csv", index=False)
    labels = pd.DataFrame(
        {"compound": [f"compound{i}" for i in range(3)], "concentration": 1.0, "moa": ["A", "B", "A"]}
    )
    labels.to_csv(root / "BBBC021_v1_moa.csv", index=False)


def _scene(rng: np.random.Generator, height: int, width: int) -> Planes:
    """Photon counts of cells over a background."""
    cells = [(rng.integers(0, width), rng.integers(0, height)) for _ in range(60)]
    scene = {}
    for channel, radius in zip(bbbc021.CHANNELS, (28, 24, 12), strict=True):
        light = np.zeros((height, width), dtype=np.float32)
        for x, y in cells:
            cv2.circle(light, (int(x), int(y)), radius, rng.uniform(600, 2400), thickness=-1)
        scene[channel] = rng.poisson(150 + cv2.GaussianBlur(light, (0, 0), radius / 4)).astype(np.uint16)
    return scene


def _shifted(scene: Planes, rng: np.random.Generator) -> Planes:
    height, width = next(iter(scene.values())).shape
    shift = int(rng.integers(0, height)), int(rng.integers(0, width))
    return {channel: np.roll(plane, shift, axis=(0, 1)) for channel, plane in scene.items()}


def _write_field(root: Path, plate: str, well: str, planes: Planes, rng: np.random.Generator) -> dict[str, object]:
    """Write one field; its columns of the image table."""
    folder = root / "Week1" / plate
    folder.mkdir(parents=True, exist_ok=True)
    row: dict[str, object] = {}
    for wave, (channel, plane) in enumerate(planes.items(), 1):
        name = f"Week1_{well}_s1_w{wave}{uuid.UUID(bytes=rng.bytes(16))}.tif"
        Image.fromarray(plane).save(folder / name)
        row |= {f"Image_FileName_{channel}": name, f"Image_PathName_{channel}": f"Week1/{plate}"}
    return row


# What is compared -----------------------------------------------------------------------------------------------------


def prepare(screen: Screen, out: Path, workers: int = WORKERS) -> int:
    """The product; returns how many tiles it made."""
    store = build.prepare(screen, Preparation(), [SIZE], out, ThreadExecutor(workers), lambda done, total: None)
    return len(store.table)


def script(screen: Screen, out: Path) -> int:
    """What one would write for a single use; returns how many tiles it made."""
    out.mkdir()
    made = 0
    for _, fields in screen.fields.groupby(PLATE):
        plate = np.stack(
            [np.stack([_values(screen.root / path) for path in paths], axis=-1) for paths in _paths(screen, fields)]
        )
        dmso = plate[fields[CONTROL].to_numpy()]
        plate = (plate - dmso.mean(axis=(0, 1, 2))) / dmso.std(axis=(0, 1, 2))
        for key, is_control, field in zip(fields[FIELD_KEY].to_numpy(), fields[CONTROL], plate, strict=True):
            if is_control:
                continue
            low, high = field.min(), field.max()
            levels = ((field - low) / (high - low) * 255).astype(np.uint8)
            height, width = levels.shape[0] // 2, levels.shape[1] // 2
            for row, column in product(range(2), range(2)):
                tile = levels[row * height : (row + 1) * height, column * width : (column + 1) * width]
                if (tile > 50).mean() > 0.002:
                    resized = cv2.resize(tile, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
                    Image.fromarray(resized).save(out / f"{'_'.join(key)}_{row}-{column}.png")
                    made += 1
    return made


def _values(path: Path) -> NDArray[np.float32]:
    return np.float32(2) * np.sqrt(np.asarray(Image.open(path)).astype(np.float32) + np.float32(3 / 8))


def _paths(screen: Screen, fields: pd.DataFrame) -> list[list[str]]:
    paths: list[list[str]] = fields[screen.path_columns].to_numpy().tolist()
    return paths


def decode(paths: list[str]) -> None:
    """Read and decode one field by tifffile."""
    from tifffile import imread  # here: the processes whose memory is measured do not need it

    for path in paths:
        imread(path)


def decode_all(screen: Screen, pool: Executor) -> None:
    """Read and decode every field of a screen by tifffile."""
    fields = [[str(screen.root / path) for path in paths] for paths in _paths(screen, screen.fields)]
    list(pool.map(decode, fields, chunksize=4))


def peak_memory(root: Path, out: Path) -> int:
    """Bytes that a process of its own held at most while it prepared a screen."""
    command = [sys.executable, "-m", "tests.benchmarks.prepare", "--memory-of", str(root), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.rmtree(out)
    return int(done.stdout)


def _own_peak() -> int:
    """Of this process. Not ru_maxrss, which takes over what the parent held when it started this one."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


# The run --------------------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def speed(screen: Screen, folder: Path, rounds: int) -> tuple[list[Row], str]:
    """The comparisons of time, and a note on the rounds."""
    for paths in _paths(screen, screen.fields):
        decode([str(screen.root / path) for path in paths])  # into the page cache
    times: dict[str, list[float]] = {name: [] for name in ("prepare", "script", "threads", "processes")}
    with ThreadPoolExecutor(WORKERS) as threads, ProcessPoolExecutor(WORKERS) as processes:
        decode_all(screen, processes)  # starts them
        for _ in range(rounds):
            for _ in range(QUICK):
                os.sync()  # nothing of what was written before is left for what is timed
                times["prepare"].append(seconds(lambda: prepare(screen, folder / "tiles")))
                times["threads"].append(seconds(lambda: decode_all(screen, threads)))
                times["processes"].append(seconds(lambda: decode_all(screen, processes)))
                shutil.rmtree(folder / "tiles")
            times["script"].append(seconds(lambda: script(screen, folder / "png")))
            shutil.rmtree(folder / "png")
    typical = {name: statistics.median(each) for name, each in times.items()}
    pool = min(("threads", "processes"), key=lambda name: typical[name])
    fields = len(screen.fields)
    rate = {name: f"{fields / typical[name]:.0f} fields/s" for name in typical}
    rows = [
        Row(
            f"prepare, {WORKERS} threads: {rate['prepare']}",
            f"a single-threaded script, PNG out: {rate['script']}",
            typical["script"] / typical["prepare"],
            "at least 8 times its speed",
        ),
        Row(
            f"prepare: {typical['prepare']:.2f} s",
            f"tifffile alone, {WORKERS} {pool}: {typical[pool]:.2f} s",
            typical["prepare"] / typical[pool],
            "at most 3 times its time",
        ),
    ]
    note = "; ".join(f"{name} {', '.join(f'{one:.2f}' for one in each)} s" for name, each in times.items())
    return rows, f"{fields} fields of three 1024 x 1280 images of 16 bits, {rounds} rounds: {note}."


def main() -> None:
    """Run all comparisons and write their table."""
    arguments = argparse.ArgumentParser("python -m tests.benchmarks.prepare")
    arguments.add_argument("--fields", type=int, default=200, help="of the large screen")
    arguments.add_argument("--once", action="store_true", help="one round instead of three")
    arguments.add_argument("--memory-of", nargs=2, type=Path, metavar=("ROOT", "OUT"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.memory_of:
        prepare(bbbc021.open_screen(given.memory_of[0]), given.memory_of[1])
        print(_own_peak())
        return
    with tempfile.TemporaryDirectory(prefix="moa_ray-") as name:
        folder = Path(name)
        screens = {fields: folder / f"{fields}" for fields in (given.fields, SMALL)}
        for fields, root in screens.items():
            root.mkdir()
            make_screen(root, fields)
        many, few = (peak_memory(root, folder / "tiles") for root in screens.values())
        rows, note = speed(bbbc021.open_screen(screens[given.fields]), folder, 1 if given.once else 3)
    rows.append(
        Row(
            f"peak memory of prepare on {given.fields} fields: {many / 1e6:.0f} MB",
            f"on {SMALL} fields: {few / 1e6:.0f} MB",
            many / few,
            "at most 1.2 times",
        )
    )
    command = " ".join(["python -m tests.benchmarks.prepare", *sys.argv[1:]])
    write("prepare", "Preparing tiles", command, rows, note)


if __name__ == "__main__":
    main()
