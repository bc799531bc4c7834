"""The documents: short, plain, true to the code, and with links that lead somewhere."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import json
import re
import statistics
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from disco_fast.checkpoints import COMPACT, load_checkpoint
from disco_fast.cli import main

ROOT = Path(__file__).parents[1]
USER = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
PROSE = [
    *USER,
    *("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "csrc/README.md", "examples/README.md"),
    "disco_fast/weights/README.md",
]
LINKED = [*PROSE, "benchmarks/README.md", "examples/photographs/LICENSES.md"]
RESULTS = ROOT / "benchmarks" / "results"

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_GENERATED = re.compile(r"<!-- table:\w+ -->.*?<!-- /table -->", re.DOTALL)
_LINK = re.compile(r"!?\[([^\]]*)\]\(([^)\s]+)\)")
_CODE = re.compile(r"`[^`\n]+`")
_SENTENCE_END = re.compile(r"(?<=[.!?])[)*\"]*\s+")
# Words that the style sheet of CONTRIBUTING.md replaces.
_PRIVATE = re.compile(
    r"\b(pictures?|films?|photographs?|rooms?|halves|mends?|bury|buried|wanted|met)\b",
    re.IGNORECASE,
)


def read(name: str) -> str:
    """A document without what is rendered into it."""
    return _GENERATED.sub("", (ROOT / name).read_text())


def prose(name: str, tables: bool = False) -> str:
    """What a person wrote in sentences: no code, no links' targets; of tables only if asked."""
    text = re.sub(r"<[^>\n]+>", "", _FENCE.sub("", read(name)))
    text = _CODE.sub("CODE", re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text))
    text = _LINK.sub(r"\1", text)
    return text if tables else re.sub(r"^\|.*$|^#.*$", "", text, flags=re.MULTILINE)


def sentences(name: str) -> Iterator[str]:
    """The sentences of paragraphs and of entries of lists."""
    for block in re.split(r"\n\s*\n|\n(?= *(?:-|\d+\.) )", prose(name)):
        paragraph = re.sub(r"^ *(?:-|\d+\.) ", "", " ".join(block.split()))
        yield from filter(None, _SENTENCE_END.split(paragraph))


def words(sentence: str) -> int:
    return sum(any(map(str.isalnum, word)) for word in sentence.split())


def anchors(name: str) -> set[str]:
    """The fragments that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", (ROOT / name).read_text()), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", _LINK.sub(r"\1", heading).lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@cache
def options(*command: str) -> frozenset[str]:
    """The options of a command, as its help shows them."""
    with contextlib.redirect_stdout(io.StringIO()) as shown, pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    return frozenset(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", shown.getvalue()))


COMMANDS = [
    *[("colorize",), ("anchors",), ("video",), ("web",), ("info",), ("convert",), ("download",)],
    *[("calibrate",), ("export",), ("evaluate",), ("train",)],
    *[("train", stage) for stage in ("spixnet", "backbone", "tokens", "colorizer", "cache")],
]


def commands(name: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """The commands of a document's code, each with the options that it gets."""
    fences = " ".join(body for kind, body in _FENCE.findall(read(name)) if kind == "sh")
    code = "\n".join([fences, *(found.strip("`") for found in _CODE.findall(read(name)))])
    for line in code.replace("\\\n", " ").splitlines():
        for called in re.findall(r"(?:disco-fast|disco_fast\.cli) ([a-z][^|#)\n]*)", line):
            parts = called.split()
            length = 2 if parts[0] == "train" and len(parts) > 1 and parts[1].isalpha() else 1
            given = [part for part in parts[length:] if re.match(r"--?[a-z]", part)]
            yield tuple(parts[:length]), given


@pytest.mark.parametrize("name", PROSE)
def test_sentences_are_short_and_plain(name: str) -> None:
    long = [sentence for sentence in sentences(name) if words(sentence) > 25]
    assert not long, f"{len(long)} sentences of more than 25 words, the first: {long[0]}"
    assert ";" not in prose(name, tables=True)


@pytest.mark.parametrize("name", USER)
def test_half_of_the_sentences_are_shorter_still(name: str) -> None:
    assert statistics.median(map(words, sentences(name))) <= 16


@pytest.mark.parametrize("name", USER)
def test_the_words_are_those_of_the_style_sheet(name: str) -> None:
    assert _PRIVATE.findall(prose(name, tables=True)) == []
    assert "../shared" not in read(name)


def test_the_readme_is_a_front_page() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 180
    assert any(line.startswith("pip install") for line in lines[:30])
    assert "import disco_fast" in lines[:40]


@pytest.mark.parametrize("name", LINKED)
def test_links_lead_somewhere(name: str) -> None:
    for _, target in _LINK.findall(_FENCE.sub("", (ROOT / name).read_text())):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.resolve().is_relative_to(ROOT), f"{target}: outside the repository"
        assert file.exists(), f"{target}: no such file"
        if fragment:
            there = file.resolve().relative_to(ROOT).as_posix()
            assert fragment in anchors(there), f"{target}: no such heading"


def test_every_document_is_reached_from_the_readme() -> None:
    reached, new = {"README.md"}, ["README.md"]
    while new:
        here = new.pop()
        for _, target in _LINK.findall((ROOT / here).read_text()):
            file = ((ROOT / here).parent / target.partition("#")[0]).resolve()
            if file.suffix == ".md" and file.is_relative_to(ROOT):
                there = file.relative_to(ROOT).as_posix()
                if there not in reached:
                    reached.add(there)
                    new.append(there)
    assert set(LINKED) <= reached


@pytest.mark.parametrize("name", PROSE)
def test_commands_exist_with_their_options(name: str) -> None:
    for command, given in commands(name):
        assert command in COMMANDS, f"disco-fast {' '.join(command)}"
        assert set(given) <= options(*command), f"disco-fast {' '.join(command)}"


@pytest.mark.parametrize("name", USER)
def test_options_alone_exist(name: str) -> None:
    known = frozenset().union(*(options(*command) for command in COMMANDS))
    for code in _CODE.findall(read(name)):
        if option := re.match(r"`(--[a-z0-9-]+)", code):
            assert option[1] in known


def test_some_commands_are_found() -> None:
    found = list(commands("docs/training.md"))
    assert (("train", "spixnet"), ["--data", "--out"]) in found
    assert any("--reconstruction" in given for _, given in found)


@pytest.mark.parametrize("name", USER)
def test_python_is_python_and_its_names_exist(name: str) -> None:
    for kind, body in _FENCE.findall(read(name)):
        if kind != "python":
            continue
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("disco_fast"):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.startswith("disco_fast"):
                        importlib.import_module(alias.name)
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "disco_fast":
                assert hasattr(importlib.import_module("disco_fast"), node.attr), node.attr


# ---- The figures of the front page ---------------------------------------------------------------


def rows(section: str) -> list[list[str]]:
    """The table of a section of the README, without its head."""
    text = read("README.md").split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def test_the_speeds_of_the_readme_are_measured() -> None:
    report = json.loads((RESULTS / "engine-cpu.json").read_text())
    time = {
        (row["name"], row["precision"]): row["time"]["median"]
        for row in report["rivals"]
        if row["size"] == 256
    }
    shown = {
        "official code, fp32": time["official", "fp32"],
        "published computation with torch.compile, fp32": time["compiled", "fp32"],
        "disco_fast with OpenVINO convolutions, fp32": time["openvino_fp32", "fp32"],
        "disco_fast, fp32": time["disco_fast", "fp32"],
        "disco_fast with OpenVINO convolutions, bf16": time["openvino_bf16", "bf16"],
        "disco_fast, bf16": time["disco_fast", "bf16"],
    }
    official = time["official", "fp32"]
    assert rows("Performance") == [
        [name, f"{ms:.0f}", f"{official / ms:.2f}"] for name, ms in shown.items()
    ]
    assert report["context"]["device"] in read("README.md")


def test_the_gain_of_int8_is_measured() -> None:
    report = json.loads((RESULTS / "engine-int8-cpu.json").read_text())
    time = {
        row["precision"]: row["time"]["median"]
        for row in report["rivals"]
        if row["name"] == "disco_fast"
    }
    assert f"{time['bf16'] / time['int8']:.2f} times as fast as bf16" in read("README.md")


def test_the_qualities_of_the_readme_are_measured() -> None:
    found = json.loads((RESULTS / "quality.json").read_text())["found"]["compact"]
    default = load_checkpoint(COMPACT).readout.vividness
    measured = [
        [
            f"{row['metrics'][name]:.{decimals}f}"
            for name, decimals in (
                *(("colorfulness", 1), ("PSNR", 2), ("CIEDE2000", 2)),
                ("Frechet distance (EfficientNet-lite2, 64 axes)", 2),
            )
        ]
        for row in found["rows"]
        if row["name"] in ("gray", "Ours*")
        or (row["name"] == "automatic" and row["vividness"] in (default, 1))
    ]
    assert [row[2:] for row in rows("Quality")] == measured
    assert f"{found['settings']['photographs']} photos" in read("README.md")
    assert f"The compact checkpoint uses {default:g}." in read("docs/usage.md")
    assert f"at vividness {default:g} by default" in read("disco_fast/weights/README.md")
