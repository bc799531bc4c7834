"""Reading and writing weights, and what is said of files that do not fit."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from deterministic_weights import untrained

from disco_fast import DISCO, CheckpointError, load_checkpoint
from disco_fast.checkpoints import COMPACT, save_checkpoint

WIDTH = 0.125


@pytest.fixture(scope="module")
def network() -> DISCO:
    return untrained(WIDTH).eval()


def same(a: DISCO, b: DISCO) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_official_pickles(network: DISCO, tmp_path: Path, prefix: str, wrapped: bool):
    state = {prefix + key: value for key, value in network.state_dict().items()}
    content = {"state_dict": state, "epoch": 3, "best_loss": np.float64(0.5)} if wrapped else state
    torch.save(content, tmp_path / "disco.pth.tar")
    loaded = load_checkpoint(tmp_path / "disco.pth.tar")
    assert loaded.width == WIDTH
    assert not loaded.training
    assert same(loaded, network)


def test_pickles_of_the_legacy_format(network: DISCO, tmp_path: Path):
    path = tmp_path / "old.pth.tar"
    torch.save({"state_dict": network.state_dict()}, path, _use_new_zipfile_serialization=False)
    assert same(load_checkpoint(path), network)


def test_safetensors_round_trip(tmp_path: Path):
    wide = untrained(WIDTH, cell_size=8)
    save_checkpoint(wide, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert (loaded.width, loaded.cell_size) == (WIDTH, 8)
    assert same(loaded, wide)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_half_precision_file_is_half_as_large(network: DISCO, tmp_path: Path):
    save_checkpoint(network, tmp_path / "full.safetensors")
    save_checkpoint(network, tmp_path / "half.safetensors", torch.float16)
    sizes = [(tmp_path / f"{n}.safetensors").stat().st_size for n in ("half", "full")]
    assert sizes[0] < 0.6 * sizes[1]
    loaded = load_checkpoint(tmp_path / "half.safetensors")
    assert loaded.mid_word_prj.weight.dtype == torch.float32
    torch.testing.assert_close(
        loaded.mid_word_prj.weight, network.mid_word_prj.weight, rtol=1e-3, atol=1e-6
    )


def test_compact_network_ships():
    network = load_checkpoint(COMPACT)
    assert (network.width, network.cell_size) == (0.25, 16)
    assert network.backbone == "efficientnet-lite0"
    assert network.ranges, "int8 needs them"
    assert COMPACT.stat().st_size < 16e6


def test_malicious_pickle_is_refused(tmp_path: Path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"state_dict": Payload()}, tmp_path / "bad.pth.tar")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "bad.pth.tar")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth.tar"])
@pytest.mark.parametrize("damage", ["cut", "empty", "noise"])
def test_damaged_files_are_named(network: DISCO, tmp_path: Path, suffix: str, damage: str):
    path = tmp_path / f"file{suffix}"
    if suffix == ".safetensors":
        save_checkpoint(network, path)
    else:
        torch.save({"state_dict": network.state_dict()}, path)
    content = path.read_bytes()
    path.write_bytes(
        {"cut": content[: len(content) // 2], "empty": b"", "noise": b"\x07 no weights" * 99}[
            damage
        ]
    )
    with pytest.raises(CheckpointError, match=f"file{suffix}: not a complete"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("mid_word_prj.weight"), r"mid_word_prj\.weight is missing"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra is unknown"),
        (
            lambda s: s.update({"mid_word_prj.weight": torch.zeros(2, 64)}),
            r"mid_word_prj.weight has shape \[2, 64\], not \[313, 64\]",
        ),
        (
            lambda s: s.update({"mid_word_prj.weight": torch.full((313, 64), float("nan"))}),
            "mid_word_prj.weight holds values that are not finite",
        ),
    ],
)
def test_what_differs_is_named(network: DISCO, tmp_path: Path, change, message: str):
    state = dict(network.state_dict())
    change(state)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "other.pth")


WEIGHT = "mid_word_prj.weight"


def plain(make) -> dict[str, torch.Tensor]:
    return {WEIGHT: make((313, 64))}


VARIANCE = next(key for key in untrained(WIDTH).state_dict() if key.endswith("running_var"))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (plain(lambda s: torch.zeros(s, dtype=torch.int32)), "has type torch.int32, not one of"),
        (plain(lambda s: torch.zeros(s, dtype=torch.bool)), "has type torch.bool"),
        (plain(lambda s: torch.zeros(s, dtype=torch.complex64)), "has type torch.complex64"),
        (plain(lambda s: torch.zeros(s).to(torch.float8_e4m3fn)), "has type torch.float8_e4m3fn"),
        (plain(lambda s: torch.zeros(s).to_sparse()), "is not a plain tensor"),
        (plain(lambda s: torch.zeros(s, device="meta")), "is not a plain tensor"),
        (plain(lambda s: torch.full(s, 3e38)), "holds values beyond 1e.15"),
        (plain(lambda s: torch.full(s, 1e300, dtype=torch.float64)), "holds values beyond 1e.15"),
        (plain(lambda s: torch.full(s, float("inf"))), "are not finite"),
        (
            {VARIANCE: -torch.ones_like(untrained(WIDTH).state_dict()[VARIANCE])},
            "variances below 0",
        ),
        ({"extra": torch.zeros(1).expand(2**40)}, "extra is unknown"),
        ({"repnet.conv4_3.0.weight_orig": torch.tensor(1.0)}, "no DISCO network has its size"),
        ({"repnet.conv4_3.0.weight_orig": torch.zeros(1).expand(2**50)}, "checkpoint|size|shape"),
        ({3: torch.zeros(1)}, "holds no state dict"),
        ({None: torch.zeros(1)}, "holds no state dict"),
        ({WEIGHT: "text"}, "holds no state dict"),
    ],
)
def test_weights_that_cannot_work_are_refused(network: DISCO, tmp_path: Path, weights, message):
    torch.save({**network.state_dict(), **weights}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "odd.pth")


@pytest.mark.parametrize("metadata", [
    {"cell_size": "abc"}, {"cell_size": "1.5"}, {"cell_size": "-16"}, {"cell_size": "0"},
    {"width": "abc"}, {"width": "nan"}, {"width": "inf"}, {"width": "-1"}, {"width": "1e30"},
])  # fmt: skip
def test_sizes_of_no_network_are_refused(network: DISCO, tmp_path: Path, metadata):
    content = safetensors.torch.save(dict(network.state_dict()), {"width": "0.125", **metadata})
    (tmp_path / "odd.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("content", [
    b"\x80\x02t.", b"\x80\x02].", b"\x80\x02}.", b"\x80\x02K\x01.", b"\x80\x02(.", b"I1\n.",
    b"\x80", b"\x80\x02" + b"]" * 9999, b"PK\x03\x04" + bytes(50),
    b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",
])  # fmt: skip
def test_pickles_of_anything_are_refused(tmp_path: Path, content: bytes):
    (tmp_path / "odd.pth").write_bytes(content)
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "odd.pth")


def test_a_zip_is_not_unpacked_to_more_than_it_is(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\x80\x02" + bytes(50_000_000))
        archive.writestr("bomb/version", b"3")
    with pytest.raises(CheckpointError, match="unpack to 50000003 bytes, which is more than it"):
        load_checkpoint(tmp_path / "bomb.pth")


def test_other_networks_are_told_apart_briefly(tmp_path: Path):
    torch.save({"weight": torch.zeros(4, 3)}, tmp_path / "linear.pth")
    with pytest.raises(CheckpointError, match="and 457 more"):
        load_checkpoint(tmp_path / "linear.pth")
    torch.save([1, 2, 3], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        load_checkpoint(tmp_path / "list.pth")


def test_no_such_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth"):
        load_checkpoint(tmp_path / "nothing.pth")


def test_failed_write_leaves_the_old_file(network: DISCO, tmp_path: Path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")

    def disk_full(self: Path, data: bytes):
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(network, path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
