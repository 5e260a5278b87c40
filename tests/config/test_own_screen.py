"""The page "Your own screen" is true: its YAML is read as it stands, its table and its messages are ours."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from moa_ray.config import sweep_file
from moa_ray.config.yaml_text import read_yaml


@pytest.fixture(scope="module")
def page(repo: Path) -> str:
    text = (repo / "sweeps" / "README.md").read_text(encoding="utf-8")
    return text[text.index("\n## Your own screen\n") : text.index("\n## Searching\n")]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def test_every_block_is_a_part_of_a_sweep_file(page: str) -> None:
    whole: dict[str, Any] = {
        "study": "mine",
        "out": "runs/mine",
        "recipe": {"backbone": "SmallCNN", "weights": "random"},
    }
    first, *others = [read_yaml(block) for block in blocks(page, "yaml")]
    assert len(others) >= 6
    sweep_file.check({**whole, **first}, "page")
    for part in others:
        own = part.get("screen", {})
        screen = own if "name" in own else {**first["screen"], **own}
        sweep_file.check({**whole, **part, "screen": screen}, "page")


def test_the_table_has_the_columns_that_the_first_block_names(page: str) -> None:
    (table,) = blocks(page, "csv")
    header, *rows = csv.reader(table.splitlines())
    assert len(rows) == 3
    assert all(len(row) == len(header) for row in rows)
    screen = read_yaml(blocks(page, "yaml")[0])["screen"]
    assert {*screen["columns"].values(), *screen["images"].values()} == set(header)


def test_every_message_is_one_that_the_code_has(page: str, repo: Path) -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((repo / "moa_ray").rglob("*.py")))
    # What stands in braces, and where a string goes on in the next line, is not looked at.
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    messages = re.findall(r"^\| `(.+?)` \| ", page[page.index("| message |") :], flags=re.MULTILINE)
    assert len(messages) >= 8
    for message in messages:
        pattern = re.escape(message).replace("Compound", r"(?:Compound|\{.*?\})")
        assert re.search(pattern, source), message
