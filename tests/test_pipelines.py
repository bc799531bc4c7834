"""In other people's pipelines: transforms, torch.hub, ONNX, Ray, and the examples of all of it."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from disco_fast import Colorizer, colorize, ops
from disco_fast.checkpoints import COMPACT, load_checkpoint
from disco_fast.cli.main import main
from disco_fast.export import MismatchError, export_onnx, networks
from disco_fast.io.images import Picture, encode_image, read_image, write_image
from disco_fast.model.pooling import pool
from disco_fast.model.readout import Readout
from disco_fast.transforms import Colorize

ROOT = Path(__file__).parents[1]
PHOTOGRAPHS = ROOT / "examples" / "photographs"
SETTINGS = {"working_size": 64, "precision": "fp32"}


def pictures(count: int, uneven: bool = False) -> list[np.ndarray]:
    """Soft shapes, (H, W, 1) uint8; of three sizes if uneven."""
    made = []
    for seed in range(count):
        y, x = np.mgrid[: 32 + 8 * (seed % 3) * uneven, :48] / 7
        made.append(np.rint(127 + 110 * np.sin(x + seed) * np.cos(y)).astype(np.uint8)[..., None])
    return made


def alone(pixels: np.ndarray) -> np.ndarray:
    """What one process makes of a picture."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    return colorize(image, **SETTINGS).permute(1, 2, 0).numpy()


# ---- transforms ---------------------------------------------------------------------------------


class Pictures(Dataset[Tensor]):
    def __init__(self, transform: nn.Module):
        self.pixels, self.transform = pictures(6), transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(torch.from_numpy(self.pixels[index]).permute(2, 0, 1))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_in_the_workers_of_a_loader(context: str) -> None:
    transform = nn.Sequential(nn.Identity(), Colorize(**SETTINGS))
    expected = torch.stack([Pictures(transform)[n] for n in range(6)])  # also: used before the fork
    loader = DataLoader(
        Pictures(transform),
        batch_size=2,
        num_workers=2,
        multiprocessing_context=context,
        generator=torch.Generator(),  # or it draws from the global one
    )
    assert torch.equal(torch.cat(list(loader)), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_it_is_colorize(dtype: torch.dtype) -> None:
    image = torch.from_numpy(np.stack(pictures(2))).permute(0, 3, 1, 2)
    image = image if dtype == torch.uint8 else image / 255
    result = Colorize(**SETTINGS)(image)
    assert torch.equal(result, colorize(image, **SETTINGS))
    assert result.shape == (2, 3, 32, 48)
    assert result.dtype == dtype


def test_it_is_small_and_says_what_it_is() -> None:
    transform = Colorize(n_anchors="auto", **SETTINGS)
    assert len(pickle.dumps(transform)) < 2000
    assert pickle.loads(pickle.dumps(transform)).settings == transform.settings
    assert "n_anchors='auto'" in repr(transform)
    assert not list(transform.parameters())
    with pytest.raises(ValueError, match="working_size: expected 16"):
        Colorize(working_size=8)


def test_a_worker_is_kept_off_the_gpu() -> None:
    loader = DataLoader(
        Pictures(Colorize(device="cuda", **SETTINGS)),
        num_workers=1,
        generator=torch.Generator(),
    )
    with pytest.raises(RuntimeError, match="expected the CPU in a worker of a DataLoader"):
        next(iter(loader))


def test_within_torchvision() -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2", exc_type=(ImportError, RuntimeError))
    image = torch.from_numpy(pictures(1)[0]).permute(2, 0, 1)
    composed = v2.Compose([v2.Grayscale(3), Colorize(**SETTINGS)])
    assert torch.equal(composed(image.expand(3, -1, -1)), colorize(image, **SETTINGS))


def test_torch_hub() -> None:
    colorizer = torch.hub.load(str(ROOT), "colorizer", source="local", precision="fp32")
    image = torch.from_numpy(pictures(1)[0]).permute(2, 0, 1)
    assert torch.equal(
        colorizer.colorize(image, working_size=64).cpu(), colorize(image, **SETTINGS)
    )


# ---- ONNX ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("onnx") / "networks"
    assert main(["export", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("shape", [(1, 64, 96), (2, 128, 32)])
def test_onnx_gives_the_originals_results(exported: Path, shape: tuple[int, int, int]) -> None:
    import onnxruntime

    def run(name: str, **inputs: Tensor) -> list[Tensor]:
        session = onnxruntime.InferenceSession(exported / f"{name}.onnx")
        found = session.run(None, {key: value.numpy() for key, value in inputs.items()})
        return [torch.from_numpy(array) for array in found]

    count, height, width = shape
    draws = torch.Generator().manual_seed(0)
    gray = torch.rand(count, 1, height // 8, width // 8, generator=draws) * 2 - 1
    gray = nn.functional.interpolate(gray, size=(height, width), mode="bilinear")
    network = load_checkpoint(COMPACT)
    with torch.no_grad():
        out = network(gray, n_anchors=5)
        position = network._position(height // 16, width // 16, gray.device)
    association, features = run("features", gray=gray)
    tokens = out.pooled.flatten(2).transpose(1, 2).contiguous()
    color_tokens, logits = run("color_modeler", tokens=tokens, position=position)
    labels = torch.zeros(tokens.shape[:2], dtype=torch.int64)
    mask = out.anchor_mask.flatten(2).transpose(1, 2).contiguous()
    colors = 110 * out.anchor_colors.flatten(2).transpose(1, 2)
    labels = torch.cdist(colors, network._bin_centers).argmin(dim=2) * mask[..., 0].long()
    (guided,) = run("color_generator", tokens=tokens, mask=mask, bins=labels, position=position)
    pixels = ops.sp_diffuse(out.guided_tokens.transpose(1, 2).unflatten(
        2, (height // 16, width // 16)).contiguous(), out.association, 16, gray)  # fmt: skip
    (ab,) = run("refinenet", pixels=pixels)
    pooled, _, _ = pool(features, association, 16, ops)
    for was, got in (
        (out.association, association),
        (out.pooled, pooled),
        (out.color_tokens, color_tokens),
        (out.color_logits.flatten(2).transpose(1, 2), logits),
        (out.guided_tokens, guided),
        (out.ab, ab),
    ):
        torch.testing.assert_close(got, was, rtol=0, atol=networks.TOLERANCE)


def test_onnx_says_how_colors_are_read(exported: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported / "color_modeler.onnx")
    text = session.get_modelmeta().custom_metadata_map[networks.READOUT]
    assert Readout.from_json(text) == load_checkpoint(COMPACT).readout


def test_what_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    run = networks._compare

    def damaged(model: Any, *rest: Any) -> None:
        with torch.no_grad():
            next(model.network.parameters()).mul_(1.5)
        run(model, *rest)

    monkeypatch.setattr(networks, "_compare", damaged)
    with pytest.raises(MismatchError, match="features: association differs by"):
        export_onnx(load_checkpoint(COMPACT), tmp_path)
    assert not list(tmp_path.iterdir())


def test_export_refuses(exported: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    assert main(["export", str(exported)]) == 2
    assert "exists; choose another folder, or add --overwrite" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(tmp_path / "new")]) == 1
    assert "disco_fast[export]" in capsys.readouterr().err


# ---- Ray ----------------------------------------------------------------------------------------


def test_two_workers_give_what_one_process_gives(ray: Any) -> None:
    from disco_fast.integrations import ray as integration

    made = pictures(40, uneven=True)
    rows = ray.data.from_items([{"id": n, "gray": p} for n, p in enumerate(made)])
    colored = rows.repartition(10).map_batches(
        integration.Colorize,
        fn_constructor_kwargs={"column": "gray", **SETTINGS},
        compute=ray.data.ActorPoolStrategy(size=2),
        batch_size=4,
    )
    found = colored.take_all()
    assert sorted(row["id"] for row in found) == list(range(40))
    for row in found:
        assert np.array_equal(row["colorized"], alone(made[row["id"]]))
        assert np.array_equal(row["gray"], made[row["id"]])


@pytest.mark.thorough
def test_a_worker_is_killed_and_nothing_is_lost_or_done_twice(ray: Any, tmp_path: Path) -> None:
    from disco_fast.integrations import ray as integration

    marker = tmp_path / "killed"

    class Dying(integration.Colorize):
        def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
            if 17 in batch["id"] and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(batch)

    made = pictures(24)
    rows = ray.data.from_items([{"id": n, "image": p} for n, p in enumerate(made)])
    colored = rows.repartition(6).map_batches(
        Dying,
        fn_constructor_kwargs=SETTINGS,
        compute=ray.data.ActorPoolStrategy(size=2),
        batch_size=4,
    )
    found = colored.take_all()
    assert marker.exists()
    assert sorted(row["id"] for row in found) == list(range(24))
    assert all(np.array_equal(row["colorized"], alone(made[row["id"]])) for row in found)


def test_batches_of_mixed_modes() -> None:
    from disco_fast.integrations.ray import Colorize as Worker

    gray = pictures(1)[0]
    alpha = np.linspace(0, 255, gray.size).astype(np.uint8).reshape(gray.shape)
    deep, deep_alpha = gray.astype(np.uint16) * 257, alpha.astype(np.uint16) * 257
    modes = {
        "gray": gray[..., 0],
        "gray and alpha": np.concatenate([gray, alpha], 2),
        "RGBA": np.concatenate([gray, gray, gray, alpha], 2),
        "16 bits": deep,
        "16 bits, alpha": np.concatenate([deep, deep_alpha], 2),
        "big-endian": deep.astype(">u2"),
        "floating": (gray / np.float64(255)).astype(np.float64),
        "bool": gray[..., 0] > 127,
        "a file": encode_image(Picture(gray, alpha[..., 0]), ".png"),
    }
    batch = np.empty(len(modes), object)
    batch[:] = list(modes.values())
    worker = Worker(**SETTINGS)
    out = worker({"image": batch, "name": np.array([*modes])})
    assert list(out["error"]) == [""] * len(modes)
    found = dict(zip(out["name"], out["colorized"], strict=True))
    rgb = alone(gray)
    assert np.array_equal(found["gray"], rgb)
    for name in ("gray and alpha", "RGBA", "a file"):
        assert np.array_equal(found[name], np.concatenate([rgb, alpha], 2))
    for name in ("16 bits", "16 bits, alpha", "big-endian"):
        assert found[name].dtype == np.uint16
        assert np.abs(found[name][..., :3] / 257 - rgb).max() < 1
    assert np.array_equal(found["16 bits, alpha"][..., 3:], deep_alpha)
    assert found["floating"].dtype == np.float64
    assert np.abs(found["floating"] * 255 - rgb).max() < 1
    assert (found["bool"].dtype, found["bool"].shape) == (np.uint8, (32, 48, 3))


def test_a_bad_picture_is_told_of_in_its_row() -> None:
    from disco_fast.integrations.ray import Colorize as Worker

    good = pictures(2)
    bad = {
        "missing": (None, "got NoneType"),
        "numbers": (np.zeros((8, 8), np.int32), r"got int32 of shape \(8, 8\)"),
        "channels": (np.zeros((3, 8, 8), np.uint8), "got uint8 of shape"),
        "empty": (np.zeros((0, 8, 3), np.uint8), "got an empty tensor"),
        "not finite": (np.full((8, 8), np.nan, np.float32), "got values from nan"),
        "text": (b"no picture", "not a picture in a known format"),
    }
    rows = [good[0], *(value for value, _ in bad.values()), good[1]]
    batch = np.empty(len(rows), object)
    for row, value in enumerate(rows):
        batch[row] = value
    out = Worker(**SETTINGS)({"image": batch})
    assert np.array_equal(out["colorized"][0], alone(good[0]))
    assert np.array_equal(out["colorized"][-1], alone(good[1]))
    assert (out["error"][0], out["error"][-1]) == ("", "")
    for row, (_, sentence) in enumerate(bad.values(), 1):
        assert re.search(sentence, out["error"][row])
        assert out["colorized"][row].shape == (0, 0, 3)


def test_the_bound_of_a_job_is_its_own() -> None:
    from disco_fast.integrations.ray import Colorize as Worker

    with pytest.raises(ValueError, match="max_megapixels: expected more than 0, got 0"):
        Worker(max_megapixels=0)
    small, large = (Picture(np.full((side, side, 1), 90, np.uint8)) for side in (20, 40))
    batch = np.array([encode_image(picture, ".png") for picture in (small, large)], object)
    out = Worker(**SETTINGS, max_megapixels=0.001)({"image": batch})
    assert out["error"].tolist()[0] == ""
    assert "at most 0.001 are read" in out["error"][1]


def test_a_job_outlives_bad_pictures(ray: Any, tmp_path: Path) -> None:
    from disco_fast.integrations import ray as integration

    made = pictures(4)
    for n, pixels in enumerate(made):
        write_image(tmp_path / f"{n}.png", Picture(pixels, pixels[..., 0] if n == 2 else None))
    (tmp_path / "1.png").write_bytes(b"no picture")
    rows = ray.data.read_binary_files(str(tmp_path), include_paths=True)
    found = rows.map_batches(
        integration.Colorize,
        fn_constructor_kwargs={"column": "bytes", **SETTINGS},
        compute=ray.data.ActorPoolStrategy(size=1),
    ).take_all()
    assert len(found) == 4
    for row in found:
        n = int(Path(row["path"]).stem)
        assert row["error"] == (
            "" if n != 1 else "not a picture in a known format, or damaged, or cut short"
        )
        if n != 1:
            assert np.array_equal(row["colorized"][..., :3], alone(made[n]))
        if n == 2:
            assert np.array_equal(row["colorized"][..., 3:], made[n])


def test_batches_that_do_not_fit() -> None:
    from disco_fast.integrations.ray import Colorize as Worker
    from disco_fast.integrations.ray import service

    with pytest.raises(KeyError, match="column: expected one of image, got 'gray'"):
        Worker(column="gray", **SETTINGS)({"image": np.zeros((1, 8, 8), np.uint8)})
    for make in (Worker, service):
        with pytest.raises(ValueError, match="variants: expected 1 in Ray, got 2"):
            make(variants=2)
    with pytest.raises(ValueError, match="largest_upload: expected more than 0, got 0"):
        service(largest_upload=0)


PORT = 18423


# ---- examples -----------------------------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two small ones."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("coffee", "flower"):
        pixels = read_image(PHOTOGRAPHS / f"{name}.jpg").pixels[::2, ::2]
        write_image(folder / f"{name}.jpg", Picture(np.ascontiguousarray(pixels)))
    return folder


def example(name: str, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)]
    elsewhere = tempfile.gettempdir()  # Ray's workers look for modules where the driver was started
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_colored(path: Path) -> bool:
    return float(read_image(path).pixels.astype(float).std(axis=2).mean()) > 3


def test_example_anchors(photographs: Path, tmp_path: Path) -> None:
    printed = example(
        "anchors_by_hand", photographs / "coffee.jpg", tmp_path / "new.png", tmp_path / "a.json"
    )
    assert len(printed.splitlines()) == 8
    image = torch.from_numpy(read_image(photographs / "coffee.jpg").pixels).permute(2, 0, 1)
    analysis = Colorizer().analyze(image)
    kept = analysis.from_json((tmp_path / "a.json").read_text())
    assert len(kept) in (8, 9)
    assert torch.equal(
        torch.from_numpy(read_image(tmp_path / "new.png").pixels).permute(2, 0, 1),
        analysis.colorize(kept),
    )


def test_example_variants(photographs: Path, tmp_path: Path) -> None:
    example("variants", photographs / "coffee.jpg", photographs / "flower.jpg", tmp_path / "out")
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["reference.png", *(f"variant-{n}.png" for n in range(1, 7))]
    assert len({(tmp_path / "out" / name).read_bytes() for name in written}) == 7
    assert is_colored(tmp_path / "out" / "reference.png")


def test_example_folder(photographs: Path, tmp_path: Path) -> None:
    example("colorize_folder", photographs, tmp_path / "out")
    assert is_colored(tmp_path / "out" / "coffee.jpg")
    assert is_colored(tmp_path / "out" / "flower.jpg")


def test_example_transform() -> None:
    printed = example("dataset_transform", PHOTOGRAPHS, "--workers", 2)
    assert printed.startswith("(4, 3, 192, 192) torch.uint8")


def test_example_onnx(exported: Path, photographs: Path, tmp_path: Path) -> None:
    source, target = photographs / "coffee.jpg", tmp_path / "new.png"
    example("onnx_pipeline", exported, source, target)
    pixels = read_image(source).pixels
    made = read_image(target).pixels
    image = torch.from_numpy(pixels[: made.shape[0], : made.shape[1]]).permute(2, 0, 1)
    size = round(np.sqrt(made.shape[0] * made.shape[1]))  # the picture as it is
    whole = colorize(image, working_size=size, precision="fp32").permute(1, 2, 0).numpy()
    assert np.abs(made.astype(int) - whole).mean() < 0.1


def test_example_hub(photographs: Path, tmp_path: Path) -> None:
    example("torch_hub", ROOT, photographs / "coffee.jpg", tmp_path / "new.png")
    assert is_colored(tmp_path / "new.png")


@pytest.mark.thorough
def test_example_ray_data(photographs: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    example("ray_data", photographs, tmp_path / "out", "--workers", 1)
    assert is_colored(tmp_path / "out" / "coffee.jpg")
    assert is_colored(tmp_path / "out" / "flower.jpg")


@pytest.mark.thorough
def test_example_ray_serve(photographs: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    data = (photographs / "coffee.jpg").read_bytes()
    with started("ray_serve", "--port", PORT + 1, "--mebibytes", 1) as server:
        deadline = time.monotonic() + 240
        while answer("GET", "/")[0] != 405:  # what the service itself says
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert answer("GET", "/-/healthz")[0] == 200
        status, colored = answer("POST", "/", data)
        assert status == 200
        announced = answer("POST", "/", headers={"content-length": str(2**20 + 1)})
        assert announced == (413, b"a picture of at most 1048576 bytes, please")
    (tmp_path / "new.png").write_bytes(colored)
    assert is_colored(tmp_path / "new.png")


@contextmanager
def started(name: str, *arguments: object) -> Iterator[subprocess.Popen]:
    """An example that goes on until Ctrl-C."""
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)]
    server = subprocess.Popen(command, cwd=tempfile.gettempdir(), stderr=subprocess.DEVNULL)
    try:
        yield server
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=120)


def answer(
    method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Status and content; (0, b"") while nobody answers."""
    client = HTTPConnection("127.0.0.1", PORT + 1, timeout=240)
    try:
        client.request(method, path, body, headers or {})
        response = client.getresponse()
        return response.status, response.read()
    except OSError:
        return 0, b""
    finally:
        client.close()


def test_every_example_is_listed_and_run() -> None:
    files = {path.name for path in (ROOT / "examples").glob("*.py")}
    listed = (ROOT / "examples" / "README.md").read_text()
    here = Path(__file__).read_text()
    assert files
    for name in files:
        assert f"`{name}`" in listed
        assert f'"{Path(name).stem}"' in here
