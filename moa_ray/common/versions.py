"""Versions of the packages that shape a result."""

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("moa_ray", "keras", "tensorflow", "ray", "optuna", "mlflow", "numpy", "pandas", "scikit-learn")


def versions() -> dict[str, str]:
    """Look up the versions of Python and of the packages that shape a result.

    Returns
    -------
    dict of str
        Version by package; ``absent`` for a package that is not installed.
    """
    by_package = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            by_package[name] = version(name)
        except PackageNotFoundError:
            by_package[name] = "absent"
    return by_package
