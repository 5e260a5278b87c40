"""Print the import graph of the package in numbers: rooms, floors, arrows, and how many arrows point upwards.

    python -m tests.import_graph [FOLDER]      # FOLDER holds moa_ray/; by default this repository

A room is a folder of the package or a module at its root. An arrow leads from one room to another that any of its
modules imports, inside functions too, but not for type checkers alone. A floor is the longest way down: rooms that
import no other lie on floor 1. Rooms that import each other in a circle share a floor. Upward arrows are those that the
rule of the house does not allow (`RULE`): a wing may import those before it.
"""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
RULE = (
    {"common"},
    {"config"},
    {"screens", "training", "tracking", "statistics"},
    {"tiles", "search"},
    {"execution", "reporting"},
)


def modules(package: Path) -> dict[str, Path]:
    """Return the files of a package by the names of their modules, without the package's own name."""
    files = sorted(package.rglob("*.py"))
    return {".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports(tree: ast.AST, package: str, names: set[str]) -> Iterator[str]:
    """Yield the modules of the package that a file imports, but for those that only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            full = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            full = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            yield from imports(node, package, names)
            continue
        for name in full:
            inner = name.removeprefix(f"{package}.")
            if name.startswith(f"{package}."):
                yield inner if inner in names else inner.rpartition(".")[0]


def room(module: str) -> str:
    """Return the room that a module lies in: its folder just below the package, or the module itself."""
    return module.partition(".")[0]


def arrows(folder: Path) -> tuple[set[str], set[tuple[str, str]]]:
    """Return the rooms of the package below a folder and the arrows between them."""
    files = modules(folder / "moa_ray")
    rooms, between = set(), set()
    for module, path in files.items():
        if module == "__init__":
            continue
        here = room(module)
        rooms.add(here)
        for other in imports(ast.parse(path.read_text(encoding="utf-8")), "moa_ray", set(files)):
            if other in files and room(other) != here:
                between.add((here, room(other)))
    return rooms, between


def upward(between: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the arrows between wings that the rule does not allow, and those from a wing to the root."""
    floor = {wing: number for number, wings in enumerate(RULE) for wing in wings}
    top = len(RULE)
    if not {"common", "config"} <= {name for arrow in between for name in arrow}:
        return []  # a package without wings: the rule says nothing of it
    return sorted(
        (one, other) for one, other in between if floor.get(other, top) >= floor.get(one, top) and one in floor
    )


def floors(rooms: set[str], between: set[tuple[str, str]]) -> int:
    """Return the number of rooms on the longest way down; 0 where rooms import each other in a circle."""
    below = {name: {other for one, other in between if one == name} for name in rooms}
    height: dict[str, int] = {}
    try:
        for name in TopologicalSorter(below).static_order():
            height[name] = 1 + max((height[other] for other in below[name]), default=0)
    except CycleError as error:
        print("a circle:", " -> ".join(error.args[1]))
        return 0
    return max(height.values(), default=0)


def main() -> int:
    """Print the numbers; return 1 where an arrow points upwards."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY
    rooms, between = arrows(folder)
    against = upward(between)
    print(f"{len(rooms)} rooms, {floors(rooms, between)} floors, {len(between)} arrows, {len(against)} upward")
    print("\n".join(f"upward: {one} -> {other}" for one, other in against), end="\n" if against else "")
    return int(bool(against))


if __name__ == "__main__":
    sys.exit(main())
