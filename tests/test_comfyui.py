"""The nodes for ComfyUI: against its contract, and in ComfyUI itself where there is one.

`COMFYUI=FOLDER` names a checkout of it, whose requirements are installed.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from disco_fast import Colorizer
from disco_fast.analysis import Analysis
from disco_fast.anchors import Point

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "comfyui"
SETTINGS = {"n_anchors": 8, "seed": 0, "working_size": 64, "vividness": -1.0}


@pytest.fixture(scope="module")
def comfyui() -> ModuleType:
    """The folder, imported as ComfyUI does."""
    name = str(FOLDER).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def network() -> Colorizer:
    return Colorizer(device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def images() -> Tensor:
    """[2,64,96,3] fp32 0-1."""
    pixels = [
        read(ROOT / "examples" / "photographs" / f"{name}.jpg")[:320:5, :480:5]
        for name in ("coffee", "flower")
    ]
    return torch.from_numpy(np.stack(pixels)).float() / 255


def read(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    return cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)


def run(comfyui: ModuleType, name: str, **inputs: Any) -> Any:
    """The first output of a node, called as ComfyUI calls it."""
    node = comfyui.NODE_CLASS_MAPPINGS[name]
    given = {key: options[1]["default"] for key, options in widgets(node).items()}
    outputs = getattr(node(), node.FUNCTION)(**given | inputs)
    assert isinstance(outputs, tuple)
    assert len(outputs) == len(node.RETURN_TYPES)
    return outputs[0]


def widgets(node: type) -> dict[str, Any]:
    """Inputs that have a value of their own."""
    return {key: entry for key, entry in inputs_of(node).items() if len(entry) > 1}


def inputs_of(node: Any) -> dict[str, Any]:
    kinds = node.INPUT_TYPES()
    assert set(kinds) <= {"required", "optional", "hidden"}
    return {**kinds["required"], **kinds.get("optional", {})}


# ---- the contract -------------------------------------------------------------------------------


def test_the_contract(comfyui: ModuleType) -> None:
    nodes = comfyui.NODE_CLASS_MAPPINGS
    assert set(comfyui.NODE_DISPLAY_NAME_MAPPINGS) == set(nodes)
    made = {kind for node in nodes.values() for kind in node.RETURN_TYPES}
    for node in nodes.values():
        assert isinstance(node.CATEGORY, str)
        assert all(isinstance(kind, str) for kind in node.RETURN_TYPES)
        assert len(getattr(node, "RETURN_NAMES", node.RETURN_TYPES)) == len(node.RETURN_TYPES)
        inputs = inputs_of(node)
        parameters = inspect.signature(getattr(node(), node.FUNCTION)).parameters
        assert set(parameters) == set(inputs)
        for key in node.INPUT_TYPES().get("optional", {}):
            assert parameters[key].default is not inspect.Parameter.empty
        for kind, *options in inputs.values():
            if isinstance(kind, list):
                assert options[0]["default"] in kind
            elif kind in ("INT", "FLOAT"):
                assert options[0]["min"] <= options[0]["default"] <= options[0]["max"]
            elif kind == "STRING":
                assert isinstance(options[0]["default"], str)
            else:  # comes from another node
                assert kind in made | {"IMAGE", "MASK"}
        json.dumps(node.INPUT_TYPES())  # as the page gets them
        if validate := getattr(node, "VALIDATE_INPUTS", None):
            assert set(inspect.signature(validate).parameters) <= set(inputs)
            assert validate() is True  # what comes from other nodes is not known yet


def test_what_is_wrong_is_said_before_anything_runs(comfyui: ModuleType) -> None:
    load, anchors = (comfyui.NODE_CLASS_MAPPINGS[f"DiscoFast{n}"] for n in ("Load", "Anchors"))
    assert "there is no file 'absent.pth'" in load.VALIDATE_INPUTS("absent.pth")
    assert "device: expected one usable here" in load.VALIDATE_INPUTS("", "meta7")
    assert 'color: expected "#rrggbb"' in anchors.VALIDATE_INPUTS("blue")
    for text in ("1", "1, 2, 3", "a b", "nan 1", '[{"x": 1}]', "[1"):
        assert 'points: expected lines "x, y"' in anchors.VALIDATE_INPUTS("#fff", text)
    assert anchors.VALIDATE_INPUTS("#fff", '[{"x": 1, "y": 2.5}]') is True
    assert anchors.VALIDATE_INPUTS("#fff", "1, 2\n\n3 4\n") is True


# ---- what the nodes do --------------------------------------------------------------------------


def test_a_batch(comfyui: ModuleType, network: Colorizer, images: Tensor) -> None:
    colored = run(comfyui, "DiscoFastColorize", network=network, image=images, **SETTINGS)
    assert (colored.shape, colored.dtype) == (images.shape, torch.float32)
    for image, one in zip(images, colored, strict=True):
        alone = network.colorize(image.movedim(-1, 0), working_size=64).movedim(0, -1)
        assert torch.equal(one, alone)


def test_other_images(comfyui: ModuleType, network: Colorizer, images: Tensor) -> None:
    settings = SETTINGS | {"network": network, "n_anchors": 0, "vividness": 1.0}
    gray = images[:1].mean(dim=-1, keepdim=True)
    assert run(comfyui, "DiscoFastColorize", image=gray, **settings).shape == (1, 64, 96, 3)
    alpha = torch.cat([images[:1] * 1.2 - 0.1, images[:1, ..., :1]], dim=-1)  # beyond 0 to 1
    colored = run(comfyui, "DiscoFastColorize", image=alpha, **settings)
    assert torch.equal(colored[..., 3], alpha[..., 3])
    assert 0 <= float(colored.min()) <= float(colored.max()) <= 1


def test_the_loader(comfyui: ModuleType) -> None:
    loaded = run(comfyui, "DiscoFastLoad", device="cpu", precision="fp32")
    assert isinstance(loaded, Colorizer)
    assert (str(loaded.device), loaded.precision) == ("cpu", "fp32")


def in_blue(analysis: Analysis, points: Sequence[Point]) -> Tensor:
    """[H,W,3], with blue at points, and everything else as the network has it."""
    own = {anchor.superpixel: anchor for anchor in analysis.anchors}
    asked = [analysis.anchor(point, "#2040ff") for point in points]
    changed = own | {anchor.superpixel: anchor for anchor in asked}
    return analysis.colorize(list(changed.values())).movedim(0, -1)


def test_anchors_by_points_and_masks(
    comfyui: ModuleType, network: Colorizer, images: Tensor
) -> None:
    def colored(**asked: Any) -> Tensor:
        made = run(comfyui, "DiscoFastAnchors", color="#2040ff", **asked)
        given = {"network": network, "image": images, "anchors": made}
        return run(comfyui, "DiscoFastColorize", **given, **SETTINGS)

    masks = torch.zeros(2, 32, 48)  # half the size
    masks[0, :, 24:], masks[1, 3:5, 4:6] = 1, 1
    by_point, by_masks, by_mask = (
        colored(points="48.5, 32.5"),
        colored(mask=masks),
        colored(mask=masks[:1]),
    )
    for n, image in enumerate(images):
        analysis = network.analyze(image.movedim(-1, 0), working_size=64)
        on_the_right = [a.pixel for a in analysis.anchors if a.pixel[0] >= 48]
        assert 1 < len(on_the_right) < len(analysis.anchors)
        assert torch.equal(by_point[n], in_blue(analysis, [(48.5, 32.5)]))
        assert torch.equal(by_mask[n], in_blue(analysis, on_the_right))
        places = on_the_right if n == 0 else [(9.5, 7.5)]
        assert torch.equal(by_masks[n], in_blue(analysis, places))


def test_where_anchors_meet_the_later_one_wins(
    comfyui: ModuleType, network: Colorizer, images: Tensor
) -> None:
    def colored(anchors: Any) -> Tensor:
        given = {"network": network, "image": images[:1], "anchors": anchors}
        return run(comfyui, "DiscoFastColorize", **given, **SETTINGS)

    red = run(comfyui, "DiscoFastAnchors", color="#ff2020", points="48.5, 32.5")
    both = run(comfyui, "DiscoFastAnchors", color="#2040ff", points="48.5, 32.5", anchors=red)
    assert len(both) == 2
    assert torch.equal(colored(both), colored(both[1:]))
    assert not torch.equal(colored(both), colored(red))


def test_anchors_that_cannot_be(comfyui: ModuleType, network: Colorizer, images: Tensor) -> None:
    given = {"network": network, "image": images} | SETTINGS
    with pytest.raises(ValueError, match="expected points or a mask"):
        run(comfyui, "DiscoFastAnchors")
    for anchors, sentence in (
        ({"points": "96, 1"}, "expected pixels within 96 x 64, got 96, 1"),
        ({"mask": torch.zeros(1, 64, 64)}, "expected some of it to be white"),
        ({"mask": torch.ones(3, 64, 96)}, "expected 1, or 2 as of the images, got 3"),
    ):
        made = run(comfyui, "DiscoFastAnchors", **anchors)
        with pytest.raises(ValueError, match=sentence):
            run(comfyui, "DiscoFastColorize", anchors=made, **given)


# ---- in ComfyUI itself --------------------------------------------------------------------------


@pytest.mark.skipif("COMFYUI" not in os.environ, reason="COMFYUI names no checkout of ComfyUI")
def test_the_workflow_in_comfyui(tmp_path: Path, images: Tensor) -> None:
    for name in ("custom_nodes", "input", "output", "models"):
        (tmp_path / name).mkdir()
    (tmp_path / "custom_nodes" / "disco_fast").symlink_to(FOLDER)
    pixels = (images[0] * 255).round().to(torch.uint8).numpy()
    cv2.imwrite(str(tmp_path / "input" / "photograph.png"), pixels)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "main.py", "--cpu", "--port", str(port), "--base-directory", str(tmp_path),
        "--disable-api-nodes", "--database-url", "sqlite:///:memory:",
    ]  # fmt: skip
    log = tmp_path / "log"
    with log.open("w") as told:
        server = subprocess.Popen(command, cwd=os.environ["COMFYUI"], stdout=told, stderr=told)
    try:
        known = asked(port, "/object_info", server)
        assert known["DiscoFastColorize"]["input_order"]["required"][:2] == ["network", "image"]
        workflow = json.loads((FOLDER / "workflow.json").read_text())
        queued = asked(port, "/prompt", server, {"prompt": workflow})
        history: dict[str, Any] = {}
        while queued["prompt_id"] not in history:
            history = asked(port, f"/history/{queued['prompt_id']}", server)
            time.sleep(0.2)
        assert history[queued["prompt_id"]]["status"]["status_str"] == "success", log.read_text()
        workflow["3"]["inputs"]["color"] = "blue"
        with pytest.raises(urllib.error.HTTPError) as refused:
            asked(port, "/prompt", server, {"prompt": workflow})
        assert b'expected \\"#rrggbb\\"' in refused.value.read()
    finally:
        server.terminate()
        server.wait()
    [made] = (tmp_path / "output").glob("colorized*.png")
    assert read(made).astype(float).std(axis=2).mean() > 3


def asked(port: int, path: str, server: subprocess.Popen, data: Any = None) -> Any:
    """What the server answers, once it is up."""
    body = None if data is None else json.dumps(data).encode()
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            assert server.poll() is None
            time.sleep(0.5)
