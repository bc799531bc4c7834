"""Has the tests import the package that is installed, and not the source folder they lie beside.

`python -m pytest` puts the current folder first on the path, and there, in a checkout, lies a
package without native library. Imported before anything else; an editable installation is the
source folder, and stays.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def without_source(paths: list[str]) -> list[str]:
    """The path without the checkout, if a package is installed somewhere else."""
    others = [path for path in paths if Path(path).resolve() != ROOT]
    before, sys.path[:] = list(sys.path), others  # metadata is looked for along it
    try:
        installed = Path(str(distribution("disco_fast").locate_file("disco_fast")))
    except PackageNotFoundError:
        return paths
    finally:
        sys.path[:] = before
    is_elsewhere = (installed / "__init__.py").exists() and installed.resolve().parent != ROOT
    return others if is_elsewhere else paths


def tested() -> str:
    """Which package the tests test, in words."""
    import disco_fast

    folder = Path(disco_fast.__file__).parent
    kind = "the source folder" if folder.resolve().parent == ROOT else "installed"
    return f"disco_fast {disco_fast.__version__}, {kind}: {folder}"


sys.path[:] = without_source(sys.path)
