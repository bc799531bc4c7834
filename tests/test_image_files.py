"""Picture files: what is read is what another library wrote, and what is written it reads back."""

from __future__ import annotations

import os
import stat
import struct
import sys
import zlib

import numpy as np
import pytest

from disco_fast.io.images import ImageFileError, Picture, read_image, write_image

HEIGHT, WIDTH = 12, 17


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def noise(rng, channels, dtype=np.uint8):
    return rng.integers(0, np.iinfo(dtype).max + 1, (HEIGHT, WIDTH, channels), dtype=dtype)


def png(samples: np.ndarray, color_type: int, extra: bytes = b"") -> bytes:
    """A PNG file of the given samples, written by hand: Pillow writes no 16-bit color."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + checksum(name + content)

    def checksum(content: bytes) -> bytes:
        return struct.pack(">I", zlib.crc32(content))

    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, samples.itemsize * 8, color_type, 0, 0, 0)
    big_endian = samples.astype(samples.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    body = extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


def tiff(samples: np.ndarray, model: int, extra: int | None = None, order: str = "<") -> bytes:
    """An uncompressed TIFF file of the given samples, written by hand, in either byte order."""
    height, width, channels = samples.shape
    bits = samples.itemsize * 8
    kind = 3 if samples.dtype.kind == "f" else 1
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: model, 277: channels, 278: height}
    tags |= {273: 8, 279: samples.nbytes, 339: kind}
    if extra is not None:
        tags[338] = extra
    start = 8 + samples.nbytes
    bits_at = start + 2 + 12 * len(tags) + 4
    entries = b""
    for tag, number in sorted(tags.items()):
        if tag in (258, 339) and channels > 1:
            number = bits_at + (0 if tag == 258 else 2 * channels)
            entries += struct.pack(f"{order}HHII", tag, 3, channels, number)
        elif tag in (273, 279):
            entries += struct.pack(f"{order}HHII", tag, 4, 1, number)
        else:
            entries += struct.pack(f"{order}HHIHxx", tag, 3, 1, number)
    directory = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)
    lists = struct.pack(f"{order}{channels}H{channels}H", *[bits] * channels, *[kind] * channels)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    pixels = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    return magic + struct.pack(f"{order}I", start) + pixels + directory + lists


def refused(path, reason):
    """The file is refused for this reason, and the message begins with its path."""
    with pytest.raises(ImageFileError, match=reason) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_lossless_formats_keep_every_sample(tmp_path, rng, suffix, dtype, channels, with_alpha):
    alpha = noise(rng, 1, dtype)[..., 0] if with_alpha else None
    written = Picture(noise(rng, channels, dtype), alpha)
    write_image(tmp_path / f"a{suffix}", written)
    picture = read_image(tmp_path / f"a{suffix}")
    assert picture.pixels.dtype == dtype
    # A gray picture with alpha comes back as an RGB one of three equal channels.
    assert picture.pixels.shape[2] == (3 if with_alpha else channels)
    assert (picture.pixels == written.pixels).all()
    assert (picture.alpha is not None) == with_alpha
    if alpha is not None:
        assert picture.alpha.dtype == dtype
        assert (picture.alpha == alpha).all()


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossy_formats_keep_a_smooth_picture(tmp_path, suffix, channels):
    ramp = np.linspace(0, 200, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1).astype(np.uint8)
    pixels = ramp + np.array([0, 20, 50][:channels], np.uint8)
    write_image(tmp_path / f"a{suffix}", Picture(pixels))
    picture = read_image(tmp_path / f"a{suffix}")
    assert picture.alpha is None
    assert np.abs(picture.pixels.astype(int) - pixels).max() <= 6


def test_webp_keeps_alpha_exactly(tmp_path, rng):
    alpha = noise(rng, 1)[..., 0]
    write_image(tmp_path / "a.webp", Picture(noise(rng, 3), alpha))
    assert (read_image(tmp_path / "a.webp").alpha == alpha).all()


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_sixteen_bits_are_rounded_where_the_format_holds_eight(tmp_path, suffix):
    # 25,800 / 257 = 100.39 and 25,830 / 257 = 100.51; the next gray is 257 further on.
    for value, gray in [(25800, 100), (25830, 101), (65535, 255), (0, 0)]:
        pixels = np.full((16, 16, 1), value, np.uint16)
        write_image(tmp_path / f"a{suffix}", Picture(pixels))
        assert np.abs(read_image(tmp_path / f"a{suffix}").pixels.astype(int) - gray).max() == 0


def test_jpeg_refuses_an_alpha_and_drops_an_opaque_one(tmp_path, rng):
    pixels, opaque = noise(rng, 3), np.full((HEIGHT, WIDTH), 255, np.uint8)
    with pytest.raises(ImageFileError, match=r"a\.jpg: JPEG cannot hold its alpha"):
        write_image(tmp_path / "a.jpg", Picture(pixels, opaque - np.uint8(1)))
    assert not list(tmp_path.iterdir())
    write_image(tmp_path / "a.jpg", Picture(pixels, opaque))
    assert read_image(tmp_path / "a.jpg").alpha is None


class TestAgainstPillow:
    """The other library's view of the same files."""

    @pytest.fixture(autouse=True)
    def _pillow(self):
        reason = "Pillow writes the files that are read here; it is in the [test] extra"
        self.image = pytest.importorskip("PIL.Image", reason=reason)
        self.operations = pytest.importorskip("PIL.ImageOps", reason=reason)

    def save(self, path, pixels, **options):
        self.image.fromarray(pixels).save(path, **options)

    @pytest.mark.parametrize("orientation", range(10))
    @pytest.mark.parametrize("suffix", [".jpg", ".jfif", ".png", ".tif", ".tiff", ".webp"])
    def test_orientation(self, tmp_path, suffix, orientation):
        ramp = np.arange(HEIGHT)[:, None, None] * 9 + np.arange(WIDTH)[:, None] * 5
        pixels = (ramp + np.array([0, 20, 60])).astype(np.uint8)
        exif = self.image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"a{suffix}"
        self.save(path, pixels, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
        with self.image.open(path) as opened:
            expected = np.asarray(self.operations.exif_transpose(opened), dtype=int)
        read = read_image(path).pixels
        assert read.shape == expected.shape
        # The two JPEG decoders round differently; a wrong turn is tens of grays away.
        assert np.abs(read - expected).max() <= (4 if suffix in (".jpg", ".jfif") else 0)

    @pytest.mark.parametrize("suffix", [".png", ".webp"])
    def test_alpha_turns_with_the_picture(self, tmp_path, rng, suffix):
        exif = self.image.Exif()
        exif[0x0112] = 6
        samples = noise(rng, 4)
        options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
        self.save(tmp_path / f"a{suffix}", samples, exif=exif, **options)
        picture = read_image(tmp_path / f"a{suffix}")
        assert (picture.pixels == np.rot90(samples, -1)[..., :3]).all()
        assert (picture.alpha == np.rot90(samples, -1)[..., 3]).all()

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
    def test_alpha_that_is_written_is_read(self, tmp_path, rng, suffix):
        samples = noise(rng, 4)
        write_image(tmp_path / f"a{suffix}", Picture(samples[..., :3], samples[..., 3]))
        with self.image.open(tmp_path / f"a{suffix}") as opened:
            assert opened.mode == "RGBA"
            read = np.asarray(opened)
        assert (read[..., 3] == samples[..., 3]).all()
        assert suffix == ".webp" or (read == samples).all()

    def test_palette_and_one_bit(self, tmp_path, rng):
        palette = self.image.fromarray(noise(rng, 3)).quantize(16)
        palette.save(tmp_path / "p.png")
        assert (read_image(tmp_path / "p.png").pixels == np.asarray(palette.convert("RGB"))).all()
        palette.save(tmp_path / "t.png", transparency=3)
        picture = read_image(tmp_path / "t.png")
        assert picture.alpha is not None
        assert ((picture.alpha == 0) == (np.asarray(palette) == 3)).all()
        bits = self.image.fromarray(noise(rng, 1)[..., 0]).convert("1")
        for name in ("b.png", "b.tif"):
            bits.save(tmp_path / name)
            assert (read_image(tmp_path / name).pixels[..., 0] == np.asarray(bits) * 255).all()

    @pytest.mark.parametrize("name", ["a.webp", "a.png", "a.tif"])
    def test_first_frame_of_several(self, tmp_path, rng, name):
        first, second = (self.image.fromarray(noise(rng, 3)) for _ in range(2))
        lossless = {"lossless": True} if name == "a.webp" else {}
        first.save(tmp_path / name, save_all=True, append_images=[second], **lossless)
        assert (read_image(tmp_path / name).pixels == np.asarray(first)).all()

    def test_transparent_shade_of_a_gray_png(self, tmp_path, rng):
        gray = noise(rng, 1)[..., 0] // 16
        self.save(tmp_path / "a.png", gray, transparency=3)
        picture = read_image(tmp_path / "a.png")
        assert (picture.pixels[..., 0] == gray).all()
        assert ((picture.alpha == 0) == (gray == 3)).all()

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
    def test_cut_short(self, tmp_path, rng, suffix):
        path = tmp_path / f"a{suffix}"
        self.save(path, rng.integers(0, 256, (80, 80, 3), dtype=np.uint8))
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        refused(path, "cut short")

    def test_content_decides_and_not_the_suffix(self, tmp_path, rng):
        pixels = noise(rng, 3)
        self.save(tmp_path / "a.jpg", pixels, format="PNG")
        assert (read_image(tmp_path / "a.jpg").pixels == pixels).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_with_alpha_in_both_depths(tmp_path, rng, dtype):
    gray = noise(rng, 2, dtype)
    (tmp_path / "gray.png").write_bytes(png(gray, color_type=4))
    picture = read_image(tmp_path / "gray.png")
    assert (picture.pixels == gray[..., :1]).all()
    assert (picture.alpha == gray[..., 1]).all()
    color = noise(rng, 4, dtype)
    (tmp_path / "color.png").write_bytes(png(color, color_type=6))
    picture = read_image(tmp_path / "color.png")
    assert (picture.pixels == color[..., :3]).all()
    assert (picture.alpha == color[..., 3]).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("extra", [None, 0, 2])
def test_tiff_colors_are_not_multiplied_by_their_alpha(tmp_path, rng, order, dtype, extra):
    samples = noise(rng, 4, dtype)
    (tmp_path / "a.tif").write_bytes(tiff(samples, 2, extra, order))
    picture = read_image(tmp_path / "a.tif")
    assert (picture.pixels == samples[..., :3]).all()
    assert (picture.alpha == samples[..., 3]).all()


def test_tiff_whose_white_is_zero(tmp_path, rng):
    samples = noise(rng, 1)
    (tmp_path / "a.tif").write_bytes(tiff(samples, 0))
    assert (read_image(tmp_path / "a.tif").pixels == 255 - samples).all()


@pytest.mark.parametrize(
    ("channels", "dtype", "model", "extra", "reason"),
    [
        (1, np.float32, 1, None, "its samples are float"),
        (1, np.int16, 1, None, "its samples are short"),
        (5, np.uint8, 2, 2, "5 samples a pixel"),
    ],
)
def test_tiffs_that_would_be_misread_are_refused(
    tmp_path, rng, channels, dtype, model, extra, reason
):
    samples = rng.integers(0, 100, (HEIGHT, WIDTH, channels)).astype(dtype)
    data = tiff(samples, model, extra)
    if dtype == np.int16:  # sample format 2: signed
        data = data.replace(struct.pack("<HHIH", 339, 3, 1, 1), struct.pack("<HHIH", 339, 3, 1, 2))
    (tmp_path / "a.tif").write_bytes(data)
    refused(tmp_path / "a.tif", reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"a letter, not a picture" * 10, "not a picture"),
        (b"\0" * 500, "not a picture"),
        (b"II+\0" + b"\x08\0\0\0" * 9, "BigTIFF"),
        (b"II*\0\xff\xff\xff\xff", "not a picture"),
        (b"MM\0*\0\0\0\x08\xff\xff", "not a picture"),
    ],
)
def test_other_files_are_refused(tmp_path, content, reason):
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png", reason)


def test_a_picture_that_is_too_large_is_refused_by_its_header(tmp_path):
    header = png(np.zeros((1, 1, 3), np.uint8), 2)
    size = struct.pack(">II", 100_000, 100_000)
    content = header[:16] + size + header[24:29]
    checksum = struct.pack(">I", zlib.crc32(content[12:]))
    (tmp_path / "a.png").write_bytes(content + checksum + header[33:])
    refused(tmp_path / "a.png", "100000 x 100000 pixels are 10000 megapixels; at most 250 are read")


def test_absent_file_and_folder(tmp_path):
    refused(tmp_path / "a.png", "No such file")
    (tmp_path / "b.png").mkdir()
    refused(tmp_path / "b.png", "directory|denied")


@pytest.mark.parametrize("cut", range(27))
def test_damaged_exif_is_no_orientation(tmp_path, cut):
    """An EXIF block cut anywhere, or with its directory out of bounds, leaves the picture as is."""
    exif = b"II*\0" + struct.pack("<IHHHIHxxI", 8, 1, 0x0112, 3, 1, 6, 0)
    exif = exif[:cut] if cut < len(exif) else b"II*\0\xf0\xff\xff\xff" + exif
    content = b"eXIf" + exif
    chunk = struct.pack(">I", len(exif)) + content + struct.pack(">I", zlib.crc32(content))
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    (tmp_path / "a.png").write_bytes(png(pixels, 0, chunk))
    whole = 22 <= cut < 26  # the entry is there, only the pointer to a next directory is cut
    assert read_image(tmp_path / "a.png").pixels.shape == ((3, 2, 1) if whole else (2, 3, 1))


def test_other_suffixes_are_not_written(tmp_path, rng):
    for name in ("a.bmp", "a", "a.heic"):
        with pytest.raises(ImageFileError, match="pictures are written as"):
            write_image(tmp_path / name, Picture(noise(rng, 3)))
    assert not list(tmp_path.iterdir())


def test_too_wide_for_the_format(tmp_path):
    for suffix in (".jpg", ".webp"):
        with pytest.raises(ImageFileError, match=f"70000 x 1 pixels are too many for {suffix}"):
            write_image(tmp_path / f"a{suffix}", Picture(np.zeros((1, 70_000, 3), np.uint8)))
    assert not list(tmp_path.iterdir())


def test_unicode_names(tmp_path, rng):
    pixels = noise(rng, 3)
    write_image(tmp_path / "größe 写真.png", Picture(pixels))
    assert (read_image(tmp_path / "größe 写真.png").pixels == pixels).all()


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, rng):
    folder = tmp_path / "a.png"
    folder.mkdir()  # the last step, the rename, cannot replace a folder
    with pytest.raises(ImageFileError, match=r"a\.png: "):
        write_image(folder, Picture(noise(rng, 3)))
    assert list(tmp_path.iterdir()) == [folder]
    with pytest.raises(ImageFileError, match=r"absent.b\.png: No such file"):
        write_image(tmp_path / "absent" / "b.png", Picture(noise(rng, 3)))


def test_an_interrupted_write_leaves_nothing(tmp_path, rng, monkeypatch):
    """Ctrl-C between the bytes and the rename: the worst moment."""

    def interrupt(source, target):
        assert os.path.getsize(source) > 0
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_image(tmp_path / "a.png", Picture(noise(rng, 3)))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask for files")
def test_the_umask_decides_who_may_read(tmp_path, rng):
    before = os.umask(0o027)
    try:
        write_image(tmp_path / "a.png", Picture(noise(rng, 3)))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640
