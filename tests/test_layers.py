"""Who imports whom in the package: layers without a circle, few enough to be drawn."""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import disco_fast

ROOT = Path(disco_fast.__file__).parent


def _part(module: str) -> str:
    """The module or folder at the package's top."""
    return ([*module.split("."), "__init__"])[1]


def _modules() -> dict[str, Path]:
    return {
        ".".join((ROOT.name, *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in ROOT.rglob("*.py")
    }


def _imports() -> dict[str, set[str]]:
    modules, found = _modules(), defaultdict(set)
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                origin = ".".join([*parents, *([node.module] if node.module else [])])
                for alias in node.names:
                    inner = f"{origin}.{alias.name}"
                    found[_part(name)].add(_part(inner if inner in modules else origin))
    own = {part: others - {part, "__init__"} for part, others in found.items()}
    return {_part(name): own.get(_part(name), set()) for name in modules if name != ROOT.name}


def test_no_circle_and_few_layers() -> None:
    imports = _imports()
    height: dict[str, int] = {}
    for part in TopologicalSorter(imports).static_order():  # raises CycleError
        height[part] = 1 + max((height[other] for other in imports[part]), default=0)
    assert height["cli"] == max(height.values()) == 8
    assert height["reference"] == 1
    assert len(height) <= 26
