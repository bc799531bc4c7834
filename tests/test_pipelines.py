"""In other people's pipelines: transforms, torch.hub, ONNX, Ray, and the examples of all of it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from disco_fast import Colorizer, colorize, ops
from disco_fast.checkpoints import COMPACT, load_checkpoint
from disco_fast.cli import main
from disco_fast.export import MismatchError, export_onnx, networks
from disco_fast.image_files import Picture, encode_image, read_image, write_image
from disco_fast.readout import Readout
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


@pytest.mark.parametrize("shape", [(1, 64, 96), (2, 112, 48)])
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
    pooled, _ = ops.sp_pool(features, association, 16)
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


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    module = pytest.importorskip("ray")
    here = Path.cwd()
    # Workers look for modules where the driver was started: not in the source folder, which has no
    # kernels.
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    paths = os.environ.get("PYTHONPATH", "")
    module.init(
        num_cpus=3,  # two workers, and one for what reads and splits
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=150 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": f"{Path(__file__).parent}:{paths}"}},
    )
    os.chdir(here)
    yield module
    module.shutdown()


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


def test_batches_that_do_not_fit() -> None:
    from disco_fast.integrations.ray import Colorize as Worker
    from disco_fast.integrations.ray import service

    worker = Worker(column="gray", **SETTINGS)
    with pytest.raises(KeyError, match="column: expected one of image, got 'gray'"):
        worker({"image": np.zeros((1, 8, 8), np.uint8)})
    with pytest.raises(TypeError, match=r"images\[0\]: expected a tensor"):
        worker({"gray": np.zeros((1, 8, 8), np.int32)})
    flat = worker({"gray": np.stack([p[..., 0] for p in pictures(2)])})
    assert np.array_equal(flat["colorized"][1], alone(pictures(2)[1]))
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match="variants: expected 1, got 2"):
        service(variants=2)


PORT = 18423


def post(data: bytes) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", data, timeout=60) as answer:
        return answer.read()


def replicas() -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"ServeReplica" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:  # gone meanwhile
            pass
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes as on Linux")
def test_a_service_that_loses_a_replica_answers_all(ray: Any) -> None:
    from ray import serve

    from disco_fast.integrations.ray import service

    made = pictures(30)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    options = {"num_cpus": 0.5}
    serve.run(service(num_replicas=2, ray_actor_options=options, largest_upload=50_000, **SETTINGS))
    answers: dict[int, list[bytes]] = {n: [] for n in range(len(made))}
    errors: list[Exception] = []
    half = threading.Event()

    def ask(numbers: range) -> None:
        for n in numbers:
            if n >= 15:
                half.wait()
            for _ in range(20):
                try:
                    answers[n].append(post(encode_image(Picture(made[n]), ".png")))
                    break
                except (urllib.error.URLError, OSError) as error:  # its replica died: ask again
                    errors.append(error)

    askers = [threading.Thread(target=ask, args=(range(start, 30, 5),)) for start in range(5)]
    for asker in askers:
        asker.start()
    running = replicas()
    assert len(running) == 2
    os.kill(running[0], signal.SIGKILL)
    half.set()
    for asker in askers:
        asker.join()
    for n, found in answers.items():
        assert len(found) == 1, errors
        decoded = cv2.imdecode(np.frombuffer(found[0], np.uint8), cv2.IMREAD_COLOR_RGB)
        assert np.array_equal(decoded, alone(made[n]))
    for data, status, sentence in (
        (b"no picture", 400, "not a picture in a known format"),
        (b"", 400, "the file is empty"),
        (b"x" * 50_001, 413, "at most 50000 bytes"),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(data)
        assert refused.value.code == status
        assert sentence in refused.value.read().decode()
    serve.shutdown()


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


def test_example_ray_data(photographs: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    example("ray_data", photographs, tmp_path / "out", "--workers", 1)
    assert is_colored(tmp_path / "out" / "coffee.jpg")
    assert is_colored(tmp_path / "out" / "flower.jpg")


def test_example_ray_serve(photographs: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    example("ray_serve", photographs / "coffee.jpg", tmp_path / "new.png", "--port", PORT + 1)
    assert is_colored(tmp_path / "new.png")


def test_every_example_is_listed_and_run() -> None:
    files = {path.name for path in (ROOT / "examples").glob("*.py")}
    listed = (ROOT / "examples" / "README.md").read_text()
    here = Path(__file__).read_text()
    assert files
    for name in files:
        assert f"`{name}`" in listed
        assert f'"{Path(name).stem}"' in here
