"""Make the pages of the API with pdoc, and count what it warns of.

python -m tests.documentation [FOLDER]      # by default a temporary folder that goes away
"""

import importlib
import os
import pkgutil
import sys
import tempfile
import warnings
from pathlib import Path

LAZY = ("moa_ray", "moa_ray.training")  # what these export is loaded when it is first asked for: pdoc does not ask


def build(folder: Path) -> list[str]:
    """Write one page per module below a folder.

    Parameters
    ----------
    folder : Path
        Made where it is not there.

    Returns
    -------
    list of str
        What pdoc warned of.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import pdoc

    for name in LAZY:
        module = importlib.import_module(name)
        for exported in getattr(module, "__all__", ()):
            setattr(module, exported, getattr(module, exported))
    pdoc.render.configure(docformat="numpy")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=UserWarning, module=r"pdoc\b")
        # Each by name: of a package with `__all__` pdoc takes what that lists alone, of others it finds all itself.
        warnings.filterwarnings(
            "ignore", message="The module specification .* already been added", category=UserWarning
        )
        pdoc.pdoc("moa_ray", *_modules(), output_directory=folder)
    return [str(warning.message).splitlines()[0] for warning in caught if "/pdoc/" in warning.filename]


def _modules() -> list[str]:
    package = importlib.import_module("moa_ray")
    return [module.name for module in pkgutil.walk_packages(package.__path__, "moa_ray.")]


def main() -> int:
    """Print every warning; return 1 where there is one."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary)
        warned = build(folder)
        pages = len(list(folder.rglob("*.html")))
    print("\n".join([*warned, f"{pages} pages, {len(warned)} warnings"]))
    return int(bool(warned))


if __name__ == "__main__":
    sys.exit(main())
