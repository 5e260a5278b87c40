"""What the benchmarks share: one row a comparison, and the table that is written beside the benchmark."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One comparison within one run.

    what, against : what was measured and against what, each with its own figure and unit
    ratio : of the two
    target : the ratio that is wanted
    """

    what: str
    against: str
    ratio: float
    target: str


def machine() -> str:
    """The machine that figures come from."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def write(name: str, title: str, command: str, rows: Sequence[Row], notes: str = "") -> None:
    """Print the table, and write it to `name`.md beside the benchmarks."""
    lines = [
        f"# {title}",
        "",
        f"`{command}`: {machine()}. Timings on this machine are noisy; each ratio compares two things of one run.",
        "",
        "| what | against | ratio | target |",
        "|---|---|---|---|",
        *(f"| {row.what} | {row.against} | {row.ratio:.2f} | {row.target} |" for row in rows),
        "",
        *([notes, ""] if notes else []),
    ]
    print("\n".join(lines))
    (HERE / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")
