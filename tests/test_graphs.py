"""What is replayed and what is not; where there is a GPU, that a replay gives what a call gives."""

from __future__ import annotations

import itertools
import threading
from contextlib import nullcontext

import pytest
import torch
from conftest import need_gpu
from torch import Tensor

from disco_fast.checkpoints import random_network
from disco_fast.engine import Engine
from disco_fast.engine.engine import _with_index
from disco_fast.engine.graphs import (
    GRAPHS,
    SEEN,
    CaptureError,
    CudaGraphs,
    Replays,
    capture_streams,
)


class Recorder:
    """A function that adds its setting to its input, and a capture that says when it was used."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.refuse: Exception | None = None
        self.replays = Replays(self.function, self.capture)

    def function(self, inputs: tuple[Tensor, ...], setting: int) -> Tensor:
        self.calls.append("call")
        return inputs[0] + setting

    def capture(self, function, inputs, settings):
        if self.refuse:
            raise self.refuse
        self.calls.append("capture")

        def replay(inputs: tuple[Tensor, ...]) -> Tensor:
            self.calls.append("replay")
            return inputs[0] + settings[0]

        return replay

    def __call__(self, size: int, setting: int = 0) -> list[str]:
        """What one call leads to; its result is checked."""
        self.calls.clear()
        x = torch.arange(float(size))
        assert torch.equal(self.replays((x,), setting), x + setting)
        return list(self.calls)


CAPTURED = ["capture", "replay"]


def test_the_second_call_alike_is_captured_and_later_ones_are_replays():
    run = Recorder()
    assert [run(3), run(3), run(3), run(3)] == [["call"], CAPTURED, ["replay"], ["replay"]]


def test_another_shape_or_setting_is_another_call():
    run = Recorder()
    for size, setting in ((3, 0), (4, 0), (3, 1)):
        assert run(size, setting) == ["call"]
    for size, setting in ((3, 0), (4, 0), (3, 1)):
        assert run(size, setting) == CAPTURED


def test_the_graph_used_longest_ago_makes_room():
    run = Recorder()
    for size in range(1, GRAPHS + 1):
        run(size), run(size)
    assert run(1) == ["replay"]
    run(GRAPHS + 1), run(GRAPHS + 1)
    assert run(1) == ["replay"]
    assert [run(2), run(2), run(2), run(2)] == [["call"], ["call"], CAPTURED, ["replay"]]


def test_where_more_shapes_take_turns_than_there_are_graphs_captures_become_rare():
    run = Recorder()
    turns, captures = 64, []
    for _ in range(turns):
        made = [run(size) for size in range(1, 2 * GRAPHS + 1)]
        captures.append(sum(calls == CAPTURED for calls in made))
    assert captures[0] == 0
    assert captures[1] == 2 * GRAPHS
    assert sum(captures) <= 2 * GRAPHS * 6  # log2(turns)


def test_calls_long_ago_are_forgotten():
    run = Recorder()
    for size in range(1, SEEN + 2):
        assert run(size) == ["call"]
    assert run(SEEN + 1) == CAPTURED
    assert run(1) == ["call"]


def test_after_a_refusal_everything_is_called_and_the_reason_is_kept():
    run = Recorder()
    run(3), run(3)
    run.refuse = CaptureError("no room\nat all")
    assert run(4) == run(4) == ["call"]
    assert run.replays.refusal == "a capture failed (no room)"
    assert run(3) == ["call"]


def test_want_of_memory_costs_the_batch_and_not_the_graphs(monkeypatch: pytest.MonkeyPatch):
    emptied: list[int] = []
    run = Recorder()
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: emptied.append(len(run.replays._replays))
    )
    run(3), run(3), run(4)
    run.refuse = torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(torch.OutOfMemoryError):
        run(4)
    assert emptied == [0]  # the graphs were gone by then
    run.refuse = None
    assert run.replays.refusal is None
    assert [run(4), run(4)] == [CAPTURED, ["replay"]]


class FakeCuda:
    """What a capture asks of `torch.cuda`, noted down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.streams: list[FakeCuda.Stream] = []
        self.recorded: list[tuple[object, int]] = []  # the stream of a capture and its thread

        class Stream:
            def __init__(_, device: int, priority: int = 0):  # noqa: N805
                assert priority == -1
                self.streams.append(_)

        class Capture:
            def __init__(_, graph, pool, stream, capture_error_mode):  # noqa: N805
                assert capture_error_mode == "thread_local"
                self.recorded.append((stream, threading.get_ident()))

            def __enter__(_):  # noqa: N805
                pass

            def __exit__(_, *error):  # noqa: N805
                pass

        fakes = {
            "Stream": Stream,
            "graph": Capture,
            "stream": lambda _: nullcontext(),
            "device": lambda _: nullcontext(),
            "Event": object,
            "CUDAGraph": object,
            "graph_pool_handle": object,
            "synchronize": lambda: None,
            "current_device": lambda: 0,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        capture_streams.cache_clear()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch):
    yield FakeCuda(monkeypatch)
    capture_streams.cache_clear()


def test_captures_are_made_on_one_stream_by_one_thread_of_their_own(cuda: FakeCuda):
    modes: list[tuple] = []

    def function(inputs: tuple[Tensor, ...]) -> Tensor:
        benchmark = torch.backends.cudnn.benchmark
        modes.append((benchmark, torch.is_inference_mode_enabled(), threading.get_ident()))
        return inputs[0] + 1

    for size in range(1, 41):
        CudaGraphs().capture(function, (torch.zeros(size),), ())
    assert len(cuda.streams) == 2  # the trunk's and the branch's
    assert {stream for stream, _ in cuda.recorded} == {capture_streams(0)[0]}
    (thread,) = {thread for _, thread in cuda.recorded}
    # cuDNN looks what it chose for a shape up by thread: this one has no calls but captures.
    assert thread != threading.get_ident()
    assert set(modes) == {(True, True, thread)}
    assert torch.backends.cudnn.benchmark is False


def test_a_failure_before_the_capture_is_the_callers(cuda: FakeCuda):
    def fail(inputs: tuple[Tensor, ...]) -> Tensor:
        raise torch.OutOfMemoryError("no")

    with pytest.raises(torch.OutOfMemoryError):
        CudaGraphs().capture(fail, (), ())
    calls = iter((False, True))

    def fail_the_second_time(inputs: tuple[Tensor, ...]) -> Tensor:
        if next(calls):
            raise RuntimeError("not permitted when stream is capturing")
        return torch.zeros(1)

    with pytest.raises(CaptureError, match="not permitted"):
        CudaGraphs().capture(fail_the_second_time, (), ())


def test_an_engine_stays_on_the_gpu_that_was_current(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert _with_index(torch.device("cuda")) == torch.device("cuda:1")
    assert _with_index(torch.device("cuda:2")) == torch.device("cuda:2")
    assert _with_index(torch.device("cpu")) == torch.device("cpu")


def test_autocast_changes_nothing():
    engine = Engine(random_network(0.25), "fp32")
    gray = picture(0)
    expected = engine(gray), engine.chroma(gray)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = engine(gray), engine.chroma(gray)
    assert torch.equal(actual[0].ab, expected[0].ab)
    assert torch.equal(actual[1], expected[1])


def test_on_a_cpu_nothing_is_replayed_and_the_engine_says_so():
    engine = Engine(random_network(0.25), "fp32")
    gray = picture(0)
    for _ in range(3):
        assert torch.equal(engine.chroma(gray), engine(gray).ab)
    assert engine.launching == "step by step: no GPU"


# ---- On a GPU ------------------------------------------------------------------------------------


def picture(number: int, device: str = "cpu", images: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return (torch.rand(images, 1, 64, 96, generator=generator) * 2 - 1).to(device)


@pytest.fixture(scope="module")
def engine() -> Engine:
    need_gpu()
    return Engine(random_network(0.25), "fp32", "cuda")


def test_cuda_replays_are_the_eager_call(engine: Engine):
    for number in range(6):
        gray = picture(number, "cuda")
        replayed = engine.chroma(gray, seed=5)
        torch.testing.assert_close(replayed, engine(gray, seed=5).ab, rtol=0, atol=1e-4)
    assert engine.launching == "as CUDA graphs"
    assert engine._replays._replays


def test_cuda_replays_take_another_vividness(engine: Engine):
    gray = picture(0, "cuda")
    graphs = []
    for vividness in (0.0, 1.0, 0.3, 0.5):
        offset = engine.offset(vividness)
        found = engine.chroma(gray, seed=9, offset=offset)
        torch.testing.assert_close(found, engine(gray, seed=9, offset=offset).ab, rtol=0, atol=1e-4)
        graphs.append(len(engine._replays._replays))
    assert graphs[1] == graphs[2] == graphs[3]  # one graph for all of them
    init = torch.arange(8, device="cuda")[None]
    for _ in range(3):  # with a further input
        found = engine.chroma(gray, kmeans_init=init, offset=engine.offset(0.7))
        expected = engine(gray, kmeans_init=init, offset=engine.offset(0.7)).ab
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_cuda_results_outlive_later_replays(engine: Engine):
    first = [engine.chroma(picture(0, "cuda")) for _ in range(3)][-1]
    kept = first.clone()
    engine.chroma(picture(1, "cuda"))
    assert torch.equal(first, kept)
    assert torch.equal(engine.chroma(picture(0, "cuda")), kept)


def test_cuda_more_shapes_than_graphs(engine: Engine):
    shapes = [(1, 1, 64 + 16 * i, 32) for i in range(GRAPHS + 3)]
    inputs = [torch.full(shape, 0.3, device="cuda") for shape in shapes]
    eager = [engine(x).ab for x in inputs]
    for _ in range(3):
        for x, expected in zip(inputs, eager, strict=True):
            torch.testing.assert_close(engine.chroma(x), expected, rtol=0, atol=1e-4)
    assert len(engine._replays._replays) == GRAPHS


def test_cuda_captures_leave_other_threads_alone(engine: Engine):
    """Forty captures, more than torch has usual streams, beside a thread that works on one."""
    stop, wrong = threading.Event(), []

    def work() -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for number in itertools.count(1):
                filled = torch.full((1 << 20,), float(number), device="cuda")
                torch.cuda.current_stream().synchronize()
                if not filled.eq(number).all().item():
                    wrong.append(number)
                if stop.is_set():
                    return

    thread = threading.Thread(target=work)
    thread.start()
    for rows in range(4, 44):
        x = torch.full((1, 1, 16 * rows, 32), 0.3, device="cuda")
        engine.chroma(x), engine.chroma(x)
    stop.set()
    thread.join()
    assert not wrong
    assert engine.launching == "as CUDA graphs"


def test_cuda_threads_on_streams_of_their_own(engine: Engine):
    inputs = [picture(number, "cuda") for number in range(4)]
    expected = [[engine.chroma(x) for _ in range(2)][-1] for x in inputs]
    wrong: list[int] = []

    def work(number: int) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.default_stream())
        with torch.cuda.stream(stream):
            for _ in range(50):
                if not torch.equal(engine.chroma(inputs[number]), expected[number]):
                    wrong.append(number)

    torch.cuda.synchronize()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_cuda_settings_of_torch_are_as_before(engine: Engine):
    def settings() -> tuple:
        cudnn = torch.backends.cudnn
        precisions = cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
        return cudnn.benchmark, cudnn.deterministic, precisions

    before = settings()
    engine.chroma(picture(0, "cuda", images=2)), engine.chroma(picture(0, "cuda", images=2))
    assert settings() == before


def test_cuda_within_a_capture_of_the_callers(engine: Engine):
    x = picture(3, "cuda")
    expected = engine(x).ab
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = engine.chroma(x)
    graph.replay()
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)
