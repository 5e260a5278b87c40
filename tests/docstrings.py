"""Validate the docstrings of the package with numpydoc, by the checks that pyproject.toml lists.

    python -m tests.docstrings [FILE ...]

numpydoc reads the syntax tree and so does not know three things: a property documents a value, not a call (RT01), a
function inside a function is no part of any interface, and a method that only does what its base class says is
documented there. What it says of those is left out.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from numpydoc.hooks import validate_docstrings

REPOSITORY = Path(__file__).resolve().parent.parent
PROPERTIES = {"property", "cached_property"}
INHERITED = {"Section": {"of", "figures", "tables", "summary"}}  # what a base class documents for all that inherit it


def exempt(tree: ast.Module) -> Iterator[tuple[int, str | None]]:
    """Yield the lines, and the one check there (None: all), that numpydoc is not heard on."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, functions):
            names = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
            if names & PROPERTIES:
                yield node.lineno, "RT01"
            for inner in ast.walk(node):
                if inner is not node and isinstance(inner, (*functions, ast.ClassDef)):
                    yield inner.lineno, None
        elif isinstance(node, ast.ClassDef):
            inherited = {name for base in node.bases for name in INHERITED.get(ast.unparse(base), ())}
            for method in node.body:
                if isinstance(method, functions) and method.name in inherited:
                    yield method.decorator_list[0].lineno if method.decorator_list else method.lineno, None
                    yield method.lineno, None


def findings(path: Path) -> Iterator[str]:
    """Yield what is wrong with the docstrings of one file, a line each."""
    config = validate_docstrings.parse_config(REPOSITORY)
    left_out = set(exempt(ast.parse(path.read_text(encoding="utf-8"))))
    for place, name, check, words in validate_docstrings.process_file(path, config):
        line = int(place.rsplit(":", 1)[1])
        if not left_out & {(line, check), (line, None)}:
            yield f"{path.relative_to(REPOSITORY)}:{line}: {name}: {check} {words}"


def main() -> int:
    """Print every finding; return 1 where there is one."""
    given = [Path(word).resolve() for word in sys.argv[1:]]
    files = given or sorted((REPOSITORY / "moa_ray").rglob("*.py"))
    found = [finding for path in files for finding in findings(path)]
    print("\n".join([*found, f"{len(files)} files, {len(found)} findings"]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
