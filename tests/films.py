"""Films to test with, built by PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from disco_fast.cli.main import main
from disco_fast.io.images import read_image
from disco_fast.video import film

PHOTOGRAPHS = Path(__file__).parents[1] / "examples" / "photographs"
QUICK = ["--working-size", "64", "--device", "cpu", "--precision", "fp32"]
TINY = ["--working-size", "16", "--device", "cpu", "--precision", "fp32"]
RATE = 25
_DURATIONS = 1 << 8  # FFmpeg's flag: the encoder hands on how long frames are shown
_INTERLACED = 1 << 18 | 1 << 29  # FFmpeg's flags for fields


def pan(name: str, count: int, height: int = 72, width: int = 96, step: int = 2) -> np.ndarray:
    """Gray frames of a camera that moves over a photograph, with grain, (N, H, W) uint8."""
    gray = cv2.cvtColor(read_image(PHOTOGRAPHS / f"{name}.jpg").pixels, cv2.COLOR_RGB2GRAY)
    scale = max(height / gray.shape[0], (width + step * count) / gray.shape[1])
    gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    draws = np.random.default_rng(0)
    views = [gray[:height, step * n : step * n + width] for n in range(count)]
    noisy = [view + draws.normal(0, 4, view.shape) for view in views]
    return np.rint(np.stack(noisy).clip(0, 255)).astype(np.uint8)


def write_film(
    path: Path,
    frames: np.ndarray,
    times: Sequence[int] | None = None,
    audio: str | None = None,
    container: str | None = None,
    codec: str = "libx264",
    last: int = 0,
    rate: int = RATE,
) -> Path:
    """A film of gray frames, its times in hundredths of a second, with a tone of the same length.

    `last` is how long the last frame is shown, where that is not the usual.
    """
    with av.open(str(path), "w", format=container) as output:
        options = {"crf": "10", "bf": "0" if last else "3"} if codec == "libx264" else {}
        video = output.add_stream(codec, rate=rate, options=options)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if codec == "libx264" and container is None:
            video.codec_context.time_base = Fraction(1, 100)
            video.codec_context.flags |= _DURATIONS
        sound = output.add_stream(audio, rate=44100, layout="mono") if audio else None
        step = 100 // rate
        times = range(0, step * len(frames), step) if times is None else times
        ends = [*times[1:], times[-1] + (last or step)]
        for gray, when, end in zip(frames, times, ends, strict=True):
            frame = gray_frame(gray)
            frame.pts, frame.duration, frame.time_base = when, end - when, Fraction(1, 100)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if sound is not None:
            _add_tone(output, sound, times[-1])
    return path


def _add_tone(output, sound, length: int) -> None:
    samples = np.arange(44100 * length // 100, dtype=np.float32)
    tone = (0.3 * np.sin(samples / 20)).astype(np.float32)[None]
    kind = "fltp" if sound.codec_context.format.name == "fltp" else "s16"
    tone = tone if kind == "fltp" else (tone * 32767).astype(np.int16)
    for start in range(0, tone.shape[1], 1024):
        part = np.ascontiguousarray(tone[:, start : start + 1024])
        frame = av.AudioFrame.from_ndarray(part, format=kind, layout="mono")
        frame.sample_rate, frame.pts = 44100, start
        output.mux(sound.encode(frame))
    output.mux(sound.encode(None))


def gray_frame(gray: np.ndarray) -> av.VideoFrame:
    """A frame of gray samples, (H, W) of 8 or 16 bits."""
    kind = "rgb24" if gray.dtype == np.uint8 else "rgb48le"
    return av.VideoFrame.from_ndarray(np.repeat(gray[..., None], 3, 2), format=kind)


def write_deep(
    path: Path, frames: np.ndarray, codec: str = "libx265", kind: str = "yuv420p10le", **tags: int
) -> Path:
    """A film of luma samples of 10 bits, (N, H, W), 64 to 940, without color.

    `tags` are of the codec context, say color_trc.
    """
    quiet = {"libx265": {"x265-params": "log-level=none:lossless=1"}, "ffv1": {"level": "3"}}
    with av.open(str(path), "w") as output:
        video = output.add_stream(codec, rate=RATE, options=quiet.get(codec, {}))
        video.height, video.width = frames.shape[1:]
        video.pix_fmt = kind
        video.codec_context.color_range = 1
        for name, value in tags.items():
            setattr(video.codec_context, name, value)
        for n, luma in enumerate(frames):
            frame = av.VideoFrame(luma.shape[1], luma.shape[0], kind)
            for plane, samples in zip(frame.planes, (luma, None, None), strict=True):
                rows = np.frombuffer(plane, np.uint16).reshape(plane.height, -1)
                rows[:] = 512
                if samples is not None:
                    rows[:, : plane.width] = samples
            frame.pts, frame.color_range = n, 1
            if "color_trc" in tags:
                frame.color_trc = tags["color_trc"]
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    return path


def write_fields(
    path: Path, frames: np.ndarray, codec: str = "libx264", order: str = "tff"
) -> Path:
    """An interlaced film."""
    graph = av.filter.Graph()
    height, width = frames.shape[1:]
    source = f"video_size={width}x{height}:pix_fmt=rgb24:time_base=1/{RATE}:pixel_aspect=1/1"
    nodes = [
        graph.add("buffer", source),
        graph.add("setfield", f"mode={order}"),
        graph.add("scale", "interl=1"),
        graph.add("format", "pix_fmts=yuv420p"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    with av.open(str(path), "w") as output:
        video = output.add_stream(codec, rate=RATE, options={"crf": "4", "b": "4M"})
        video.height, video.width, video.pix_fmt = height, width, "yuv420p"
        video.codec_context.flags |= _INTERLACED
        for n, gray in enumerate(frames):
            frame = gray_frame(gray)
            frame.pts, frame.time_base = n, Fraction(1, RATE)
            graph.vpush(frame)
            output.mux(video.encode(graph.vpull()))
        output.mux(video.encode(None))
    return path


def damaged(source: Path, target: Path, numbers: Sequence[int]) -> Path:
    """A copy of a film in which some packets of pictures are noise."""
    draws = np.random.default_rng(1)
    with av.open(str(source)) as given, av.open(str(target), "w") as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream, opaque=True)
        for n, packet in enumerate(p for p in given.demux(stream) if p.size):
            other = av.Packet(draws.bytes(packet.size) if n in numbers else bytes(packet))
            other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
            other.duration, other.is_keyframe = packet.duration, packet.is_keyframe
            other.stream = copy
            output.mux(other)
    return target


def colorized(source: Path, target: Path, *options: str) -> Path:
    """The film in color, by the command line and a working size that is soon done."""
    assert main(["video", str(source), "-o", str(target), *TINY, *options]) == 0
    return target


def packets(path: Path, kind: str) -> list[bytes]:
    """What the streams of a kind hold."""
    with av.open(str(path)) as container:
        streams = [stream for stream in container.streams if stream.type == kind]
        return [bytes(packet) for packet in container.demux(streams) if packet.dts is not None]


def seconds(path: Path) -> list[float]:
    """The times of a film's frames."""
    base = film.look(path).time_base
    return [float(frame.time * base) for frame in film.frames(path)]


def length(path: Path) -> float:
    """How long a film says that it is, in seconds."""
    with av.open(str(path)) as container:
        return container.duration / 1_000_000


def lightness(path: Path) -> np.ndarray:
    """L, 0 to 100, of a film's frames as any player shows them, (N, H, W) fp32."""
    with av.open(str(path)) as container:
        deep = [f.to_ndarray(format="rgb48le") for f in container.decode(video=0)]
    units = (frame.astype(np.float32) / 65535 for frame in deep)
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2Lab)[..., 0] for frame in units])
