"""Films as people have them: cuts, damage, fields, phones, HDR, deep samples, tags."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from disco_fast.cli import video as command
from disco_fast.cli.video import PART
from disco_fast.console import reason
from disco_fast.video import film
from disco_fast.video.hdr import tone_mapped

av = pytest.importorskip("av")

from films import (  # noqa: E402
    RATE,
    TINY,
    colorized,
    damaged,
    gray_frame,
    length,
    lightness,
    packets,
    pan,
    seconds,
    write_deep,
    write_fields,
    write_film,
)

from disco_fast.cli.main import main  # noqa: E402

SUFFIXES = [".mp4", ".mov", ".mkv"]


def stream_of(path: Path, kind: str = "video", number: int = 0):
    """A stream, to look at once its file is closed."""
    with av.open(str(path)) as container:
        stream = [s for s in container.streams if s.type == kind][number]
        context = stream.codec_context
        return {
            "metadata": dict(stream.metadata),
            "disposition": stream.disposition,
            "codec": context.name,
            "tag": context.codec_tag,
            "format": getattr(context, "pix_fmt", None),
            "size": (getattr(context, "width", 0), getattr(context, "height", 0)),
            "colors": [
                getattr(context, name, None)
                for name in ("colorspace", "color_primaries", "color_trc", "color_range")
            ],
        }


# ---- cuts and lengths ---------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, PART - 1, PART, PART + 1])
def test_any_number_of_frames_with_a_cut_at_the_last(count: int, tmp_path: Path) -> None:
    frames = np.repeat(pan("coffee", 1, 48, 64), count, axis=0)
    frames[-1:] = pan("rocket", 1, 48, 64)
    source = write_film(tmp_path / "in.mp4", frames)
    target = colorized(source, tmp_path / "out.mp4")
    assert seconds(target) == pytest.approx([n / RATE for n in range(count)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_a_cut_at_every_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PART", 3)
    scenes = [pan(name, 4, 48, 64) for name in ("coffee", "rocket")]
    frames = np.stack(scenes, axis=1).reshape(-1, 48, 64)
    source = write_film(tmp_path / "in.mp4", frames)
    assert len(seconds(colorized(source, tmp_path / "out.mp4"))) == len(frames)


@pytest.mark.parametrize("at", [5, 8])
def test_a_flash(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PART", 3)
    frames = pan("china", 9, 48, 64)
    frames[at] = 255
    source = write_film(tmp_path / "in.mp4", frames)
    assert len(seconds(colorized(source, tmp_path / "out.mp4"))) == len(frames)


def test_all_black(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PART", 3)
    source = write_film(tmp_path / "in.mp4", np.zeros((7, 48, 64), np.uint8))
    assert lightness(colorized(source, tmp_path / "out.mp4")).max() < 3


def test_an_error_message_is_never_empty() -> None:
    assert (
        reason(RuntimeError("\n  Some tensors share memory\nmore")) == "Some tensors share memory"
    )
    assert reason(RuntimeError(" \n\n")) == "RuntimeError"


# ---- damage, times, covers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "suffix"), [("libx264", ".mp4"), ("mpeg4", ".avi"), ("mjpeg", ".avi")]
)
def test_a_damaged_packet_costs_its_frames(
    codec: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write_film(tmp_path / f"whole{suffix}", pan("china", 20, 48, 64), codec=codec)
    source = damaged(whole, tmp_path / f"in{suffix}", [6, 13])
    losses = film.Losses()
    count = len(list(film.frames(source, losses=losses)))
    target = colorized(source, tmp_path / "out.mp4")
    assert len(seconds(target)) == count
    assert 18 <= count <= 20
    assert losses.packets == 2
    assert "2 damaged packets were passed over" in capsys.readouterr().err
    assert set(np.round(seconds(target), 2)) <= {n / RATE for n in range(20)}


def test_a_film_without_a_good_packet_is_refused(tmp_path: Path, capsys) -> None:
    whole = write_film(tmp_path / "whole.avi", pan("china", 5, 48, 64), codec="mjpeg")
    source = damaged(whole, tmp_path / "in.avi", range(5))
    before = sorted(tmp_path.iterdir())
    assert main(["video", str(source), "-o", str(tmp_path / "out.mp4"), *TINY]) == 2
    assert "no frame of it can be decoded" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("codec", "kind"), [("libx264", "h264"), ("libx265", "hevc")])
@pytest.mark.parametrize("rate", [10, RATE, 50])
def test_streams_without_times_get_their_rate(
    codec: str, kind: str, rate: int, tmp_path: Path
) -> None:
    frames = pan("china", 10, 64, 96)
    source = write_film(tmp_path / f"in.{kind}", frames, container=kind, codec=codec, rate=rate)
    target = colorized(source, tmp_path / "out.mp4")
    assert seconds(target) == pytest.approx([n / rate for n in range(10)], abs=1e-3)
    assert length(target) == pytest.approx(10 / rate, abs=1e-3)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("given", [".mp4", ".mkv"])
def test_the_last_frame_keeps_its_duration(given: str, suffix: str, tmp_path: Path) -> None:
    slides = [0, 100, 200]  # of one, one and three seconds
    source = write_film(tmp_path / f"in{given}", pan("china", 3, 48, 64, 9), slides, last=300)
    assert length(source) == pytest.approx(5, abs=0.05)
    target = colorized(source, tmp_path / f"out{suffix}")
    assert seconds(target) == pytest.approx([0, 1, 2], abs=0.002)
    assert length(target) == pytest.approx(5, abs=0.05)


def cover_first(path: Path, frames: np.ndarray) -> Path:
    """An MP4 with a cover, whose tags stand ahead of its tracks, as some programs write them."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=RATE)
        video.height, video.width = frames.shape[1:]
        cover = output.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        output.mux(cover.encode(gray_frame(np.full((32, 32), 90, np.uint8))))
        output.mux(cover.encode(None))
        for gray in frames:
            output.mux(video.encode(gray_frame(gray)))
        output.mux(video.encode(None))
    content = path.read_bytes()
    start = content.index(b"moov") - 4
    (size,) = struct.unpack(">I", content[start : start + 4])
    inner, boxes = content[start + 8 : start + size], {}
    while inner:
        (length_,) = struct.unpack(">I", inner[:4])
        boxes.setdefault(inner[4:8], []).append(inner[:length_])
        inner = inner[length_:]
    tags = boxes.pop(b"udta")
    moov = b"".join([*tags, *(box for kind in boxes.values() for box in kind)])
    path.write_bytes(content[: start + 8] + moov + content[start + size :])
    return path


def test_a_cover_that_cannot_be_kept_is_named(tmp_path: Path, capsys) -> None:
    source = cover_first(tmp_path / "in.mp4", pan("china", 3, 48, 64))
    assert len(list(film.frames(colorized(source, tmp_path / "out.mov")))) == 3
    assert "left out: stream 0 (cover)" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_cover_is_not_the_film_and_is_kept(suffix: str, tmp_path: Path) -> None:
    source = cover_first(tmp_path / "in.mp4", pan("china", 6, 48, 64))
    with av.open(str(source)) as container:
        assert container.streams.video[0].codec_context.name == "mjpeg"
    target = colorized(source, tmp_path / f"out{suffix}")
    with av.open(str(target)) as container:
        covers = [s for s in container.streams.video if film.is_cover(s)]
        (cover,) = [bytes(p) for p in container.demux(covers) if p.size]
    with av.open(str(source)) as container:
        assert cover == bytes(next(container.demux(container.streams.video[0])))
    assert len(list(film.frames(target))) == 6


# ---- fields, orientation, sizes -----------------------------------------------------------------


def combed(count: int) -> np.ndarray:
    """A bright bar that moves from field to field, the upper lines first, (N, 48, 96) uint8."""
    frames = np.full((count, 48, 96), 60, np.uint8)
    for n in range(count):
        frames[n, ::2, 10 + 12 * n : 30 + 12 * n] = 200
        frames[n, 1::2, 16 + 12 * n : 36 + 12 * n] = 200
    return frames


def combs(path: Path) -> float:
    frames = lightness(path)
    return float(np.abs(frames[:, 1:-1] - (frames[:, :-2] + frames[:, 2:]) / 2).mean())


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("mpeg2video", ".mkv")])
def test_interlaced_films_are_deinterlaced(
    codec: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_fields(tmp_path / f"in{suffix}", combed(5), codec)
    with av.open(str(source)) as container:
        assert all(frame.interlaced_frame for frame in container.decode(video=0))
    target = colorized(source, tmp_path / "out.mp4")
    assert "is interlaced; it is deinterlaced" in capsys.readouterr().err
    with av.open(str(target)) as container:
        assert not any(frame.interlaced_frame for frame in container.decode(video=0))
    assert seconds(target) == pytest.approx(seconds(source), abs=2e-3)
    assert combs(target) < 0.2 * combs(source)


@pytest.mark.parametrize("codec", ["h264", "prores"])
@pytest.mark.parametrize("order", ["tff", "bff"])
def test_fields_can_be_kept(codec: str, order: str, tmp_path: Path) -> None:
    source = write_fields(tmp_path / "in.mp4", combed(5), order=order)
    target = colorized(source, tmp_path / "out.mov", "--keep-interlaced", "--codec", codec)
    with av.open(str(target)) as container:
        assert all(frame.interlaced_frame for frame in container.decode(video=0))
    assert film.look(source).top_first == film.look(target).top_first == (order == "tff")
    assert combs(target) == pytest.approx(combs(source), rel=0.1)


def test_fields_want_a_codec_that_has_them(tmp_path: Path, capsys) -> None:
    source = write_fields(tmp_path / "in.mp4", combed(3))
    given = ["video", str(source), "-o", str(tmp_path / "out.mp4"), *TINY, "--keep-interlaced"]
    assert main([*given, "--codec", "hevc"]) == 2
    assert "--keep-interlaced: expected --codec h264 or prores" in capsys.readouterr().err


def test_progressive_frames_of_an_interlaced_film_stay(tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", pan("china", 4, 48, 64))
    both = list(film.frames(source)), list(film.frames(source, keep_interlaced=True))
    for one, other in zip(*both, strict=True):
        assert np.array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_phone_films_are_turned_upright(degrees: int, mirrored: bool, tmp_path: Path) -> None:
    stored = np.full((48, 80), 40, np.uint8)
    stored[:24, :40], stored[:24, 40:], stored[24:, :40] = 230, 160, 100
    source = tmp_path / "in.mp4"
    with av.open(str(source), "w") as output:
        video = output.add_stream("libx264", rate=RATE, options={"crf": "4"})
        video.height, video.width = stored.shape
        video.set_display_rotation(degrees, hflip=mirrored)
        for _ in range(2):
            output.mux(video.encode(gray_frame(stored)))
        output.mux(video.encode(None))
    shown = np.rot90(stored, degrees // 90)  # against the clock
    shown = shown[:, ::-1] if mirrored else shown
    target = colorized(source, tmp_path / "out.mp4")
    with av.open(str(target)) as container:
        assert all(frame.rotation == 0 for frame in container.decode(video=0))
    wanted = cv2.cvtColor(np.repeat(shown[..., None], 3, 2) / np.float32(255), cv2.COLOR_RGB2Lab)
    assert np.abs(lightness(target)[0] - wanted[..., 0]).mean() < 3


@pytest.mark.parametrize(("height", "width"), [(121, 161), (120, 161), (49, 64)])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_odd_sizes_play_everywhere(height: int, width: int, codec: str, tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as output:
        video = output.add_stream("ffv1", rate=RATE)
        video.height, video.width, video.pix_fmt = height, width, "bgr0"
        for gray in pan("china", 3, height, width):
            output.mux(video.encode(gray_frame(gray)))
        output.mux(video.encode(None))
    target = colorized(source, tmp_path / "out.mp4", "--codec", codec)
    made = stream_of(target)
    assert made["format"] == "yuv420p"
    assert made["size"] == (width + width % 2, height + height % 2)
    was, got = lightness(source), lightness(target)
    assert np.abs(got[:, :height, :width] - was).mean() < 2
    exact = colorized(source, tmp_path / "out.mkv", "--codec", "ffv1")
    assert stream_of(exact)["size"] == (width, height)


# ---- HDR and deep samples -----------------------------------------------------------------------


def pq(luminance: np.ndarray) -> np.ndarray:
    root = (np.asarray(luminance) / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** 78.84375


def test_tone_mapping_keeps_mid_tones_and_compresses_highlights() -> None:
    luminance = np.array([0, 1, 10, 50, 90, 150, 203, 400, 700, 1000])
    samples = np.rint(pq(luminance) * 65535).astype(np.uint16)
    pixels = np.repeat(samples[None, :, None], 3, axis=2)
    shown = tone_mapped(pixels, "PQ")[0, :, 0] / 65535
    linear = luminance / 203
    exact = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    assert shown[:5] == pytest.approx(exact[:5], abs=2e-3)
    assert (np.diff(shown) > 0.001).all()
    assert shown[-1] == pytest.approx(1, abs=1e-3)
    assert 0.8 < shown[6] < 0.95


def test_hlg_white_is_as_bright_as_that_of_pq() -> None:
    """ITU-R BT.2408: diffuse white is 75 % of HLG and 58 % of PQ."""
    one = tone_mapped(np.full((1, 1, 3), round(0.75 * 65535), np.uint16), "HLG")
    other = tone_mapped(np.full((1, 1, 3), round(0.58 * 65535), np.uint16), "PQ")
    assert int(one[0, 0, 0]) == pytest.approx(int(other[0, 0, 0]), rel=0.01)


@pytest.mark.parametrize(("name", "number"), [("PQ", 16), ("HLG", 18)])
def test_hdr_becomes_ordinary_and_is_said(name: str, number: int, tmp_path: Path, capsys) -> None:
    ramp = np.linspace(64, 940, 96)[None].repeat(64, 0).round().astype(np.uint16)
    tags = {"color_trc": number, "color_primaries": 9, "colorspace": 9}
    source = write_deep(tmp_path / "in.mp4", np.stack([ramp] * 3), **tags)
    target = colorized(source, tmp_path / "out.mp4")
    assert f"is HDR ({name}); it is tone-mapped to BT.709" in capsys.readouterr().err
    made = stream_of(target)
    assert made["colors"] == [1, 1, 1, 1]
    assert made["format"] == "yuv420p10le"
    got = lightness(target)[0].mean(axis=0)
    units = np.rint(np.linspace(0, 1, 96) * 65535).astype(np.uint16)[None, :, None].repeat(3, 2)
    wanted = cv2.cvtColor(tone_mapped(units, name) / np.float32(65535), cv2.COLOR_RGB2Lab)
    assert np.abs(got - wanted[0, :, 0]).mean() < 2


@pytest.mark.parametrize(
    ("codec", "suffix", "kind", "error"),
    [
        (None, ".mp4", "yuv420p10le", 0.6),
        ("h264", ".mp4", "yuv420p10le", 0.6),
        ("hevc", ".mov", "yuv420p10le", 0.6),
        ("prores", ".mov", "yuv422p10le", 0.3),
        ("ffv1", ".mkv", "yuv444p10le", 0.08),
    ],
)
def test_ten_bits_stay(
    codec: str | None, suffix: str, kind: str, error: float, tmp_path: Path
) -> None:
    ramp = np.arange(64, 940, dtype=np.uint16)[None].repeat(48, 0)
    source = write_deep(tmp_path / "in.mkv", np.stack([ramp] * 2), "ffv1")
    chosen = ["--codec", codec] if codec else []
    target = colorized(source, tmp_path / f"out{suffix}", *chosen, "--quality", "8")
    made = stream_of(target)
    assert made["format"] == kind
    assert made["colors"] == [1, 1, 1, 1]
    if codec in (None, "hevc"):
        assert (made["codec"], made["tag"]) == ("hevc", "hvc1")
    was, got = lightness(source), lightness(target)
    assert np.abs(got - was)[:, :, 90:-90].mean() < error  # nearly black and white have no color
    columns = got[0].mean(axis=0)
    assert (np.diff(columns[::8]) > 0).mean() > 0.95  # 256 levels would make steps of four


@pytest.mark.parametrize("kind", ["rgb555le", "monob", "gray", "yuv420p"])
def test_films_of_eight_bits_and_fewer(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "in.nut"
    with av.open(str(source), "w") as output:
        video = output.add_stream("rawvideo", rate=RATE)
        video.height, video.width, video.pix_fmt = 48, 64, kind
        video.codec_context.color_trc = 16 if kind == "yuv420p" else 1  # PQ is rare with 8 bits
        for gray in pan("china", 3, 48, 64):
            output.mux(video.encode(gray_frame(gray)))
        output.mux(video.encode(None))
    assert film.look(source).depth == 8
    made = stream_of(colorized(source, tmp_path / "out.mp4"))
    assert (made["codec"], made["format"]) == ("h264", "yuv420p")


def test_eight_bits_are_written_as_most_players_know_them(tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", pan("china", 3, 48, 64))
    for codec, wanted in ((None, "h264"), ("hevc", "hevc")):
        target = tmp_path / f"{wanted}.mp4"
        made = stream_of(colorized(source, target, *(["--codec", codec] if codec else [])))
        assert (made["codec"], made["format"]) == (wanted, "yuv420p")
        assert made["colors"] == [1, 1, 1, 1]


def test_a_file_that_cannot_hold_the_codec_is_refused(tmp_path: Path, capsys) -> None:
    source = write_film(tmp_path / "in.mp4", pan("china", 3, 48, 64))
    given = ["video", str(source), "-o", str(tmp_path / "out.mp4"), *TINY, "--codec", "prores"]
    assert main(given) == 2
    assert "a mp4 file cannot hold 64x48 pictures as prores" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4"]


# ---- whatever else a film holds -----------------------------------------------------------------


def write_rich(path: Path, subtitles: bool = True) -> Path:
    """A film with two sounds, subtitles, chapters, tags and, in Matroska, a font."""
    frames = pan("china", 12, 48, 64)
    with av.open(str(path), "w", container_options={}) as output:
        output.metadata.update({"title": "Home film 1931", "comment": "reel 3"})
        output.metadata["com.example.reel"] = "III"
        unit = Fraction(1, 1000)
        output.set_chapters(
            [
                {"id": n, "start": s, "end": e, "time_base": unit, "metadata": {"title": title}}
                for n, (s, e, title) in enumerate([(0, 200, "One"), (200, 480, "Two")], 1)
            ]
        )
        video = output.add_stream("libx264", rate=RATE)
        video.height, video.width = frames.shape[1:]
        sounds = []
        for language, title in (("eng", "Original"), ("deu", "Kommentar")):
            sound = output.add_stream("aac", rate=44100, layout="mono")
            sound.metadata.update({"language": language, "title": title})
            sounds.append(sound)
        sounds[0].disposition = av.stream.Disposition.default
        sounds[1].disposition = av.stream.Disposition.comment
        text = None
        if subtitles:
            text = output.add_mux_stream("subrip")
            text.metadata["language"] = "fra"
            text.time_base = unit
        if path.suffix == ".mkv":
            output.add_attachment("font.ttf", "font/ttf", b"\0\1\0\0 a font")
        for gray in frames:
            output.mux(video.encode(gray_frame(gray)))
        output.mux(video.encode(None))
        for sound in sounds:
            for n in range(20):
                part = np.full((1, 1024), 0.1, np.float32)
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 44100, 1024 * n
                output.mux(sound.encode(frame))
            output.mux(sound.encode(None))
        if text is not None:
            packet = av.Packet(b"Bonjour")
            packet.stream, packet.time_base = text, unit
            packet.pts = packet.dts = 100
            packet.duration = 200
            output.mux(packet)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_languages_titles_chapters_and_tags_are_kept(suffix: str, tmp_path: Path, capsys) -> None:
    matroska = suffix == ".mkv"
    source = write_rich(tmp_path / "in.mkv", subtitles=matroska)
    target = colorized(source, tmp_path / f"out{suffix}")
    with av.open(str(target)) as container:
        tags = {name.lower(): value for name, value in container.metadata.items()}
        assert tags["title"] == "Home film 1931"
        assert tags["comment"] == "reel 3"
        assert tags["com.example.reel"] == "III"
        chapters = container.chapters()
        assert [chapter["metadata"]["title"] for chapter in chapters] == ["One", "Two"]
        starts = [float(chapter["start"] * chapter["time_base"]) for chapter in chapters]
        assert starts == pytest.approx([0, 0.2], abs=1e-3)
    sounds = [stream_of(target, "audio", number) for number in range(2)]
    german = "ger" if suffix == ".mov" else "deu"  # QuickTime has the older of its two codes
    assert [sound["metadata"]["language"] for sound in sounds] == ["eng", german]
    name = "title" if matroska else "handler_name"
    names = [sound["metadata"][name] for sound in sounds]
    assert names == ["Original", "Kommentar"]
    default, comment = av.stream.Disposition.default, av.stream.Disposition.comment
    assert sounds[0]["disposition"] & default
    assert not sounds[1]["disposition"] & default
    assert not matroska or sounds[1]["disposition"] & comment
    assert packets(target, "audio") == packets(source, "audio")
    if matroska:
        assert packets(target, "subtitle") == packets(source, "subtitle") == [b"Bonjour"]
        assert stream_of(target, "subtitle")["metadata"]["language"] == "fra"
        with av.open(str(target)) as container:
            (font,) = [s for s in container.streams if s.type == "attachment"]
            assert (font.name, font.mimetype, font.data) == (
                "font.ttf",
                "font/ttf",
                b"\0\1\0\0 a font",
            )
    else:
        assert "(attachment font.ttf)" in capsys.readouterr().err


# ---- bounds -------------------------------------------------------------------------------------


def test_huge_films_are_refused_by_their_header(tmp_path: Path, capsys) -> None:
    source = write_film(tmp_path / "in.avi", pan("china", 2, 48, 64), codec="ffv1")
    content = bytearray(source.read_bytes())
    place = content.index(b"strf") + 12
    content[place : place + 8] = struct.pack("<2i", 12000, 12000)
    source.write_bytes(content)
    assert main(["video", str(source), "-o", str(tmp_path / "out.mp4"), *TINY]) == 2
    assert "pixels a frame, got 12000x12000" in capsys.readouterr().err


def test_films_of_very_many_streams_are_refused(tmp_path: Path, capsys) -> None:
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as output:
        video = output.add_stream("mpeg4", rate=RATE)
        video.height, video.width = 48, 64
        for _ in range(100):
            output.add_stream("flac", rate=44100, layout="mono")
        output.mux(video.encode(gray_frame(np.zeros((48, 64), np.uint8))))
        output.mux(video.encode(None))
    assert main(["video", str(source), "-o", str(tmp_path / "out.mkv"), *TINY]) == 2
    assert "expected at most 100 streams, got 101" in capsys.readouterr().err
