"""What is tested: the installed package, also where the checkout comes first on the path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import checkout

ROOT = Path(__file__).parents[1]


def test_the_installed_package_comes_before_the_checkout(tmp_path: Path):
    """In a folder as after `pip install --target`, with the path of `python -m pytest`."""
    site = tmp_path / "site"
    (site / "disco_fast").mkdir(parents=True)
    (site / "disco_fast" / "__init__.py").write_text("__version__ = '9'")
    metadata = site / "disco_fast-9.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: disco_fast\nVersion: 9\n")
    code = f"""
import sys
sys.path[:0] = {[str(ROOT), str(Path(checkout.__file__).parent), str(site)]!r}
import checkout
print(checkout.tested())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout == f"disco_fast 9, installed: {site / 'disco_fast'}\n"


def test_a_source_folder_that_is_all_there_is_stays(tmp_path: Path):
    code = f"""
import sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path]
sys.path[:0] = {[str(ROOT), str(Path(checkout.__file__).parent)]!r}
import checkout
print(sys.path[0])
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout == f"{ROOT}\n"
