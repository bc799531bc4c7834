"""The page: what is where on it, and what a click does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from ..colorizer import Colorizer
from .drawing import LONGEST, swatch_at, swatches, with_anchors
from .session import VARIANTS, Limits, Session, SessionError
from .visits import Visits

_HOUR, _SWEEP = 3600, 600  # seconds: what is kept of a visitor, and how often that is looked at
_WELCOME = "Drop a photograph to begin."
_FAILED = "That did not work, and is written in the server's log. Try it again."
_log = logging.getLogger(__name__)
CSS = """
.gradio-container { max-width: 1240px !important; margin: auto; }
#swatches img { cursor: pointer; object-fit: contain; }
#anchors img { cursor: crosshair; width: 100%; }
#variants img { object-fit: contain; }
footer { display: none !important; }
"""


def build(colorizer: Colorizer, limits: Limits) -> gr.Blocks:
    """The page of a network.

    Args:
        colorizer: it is asked by one visitor at a time.
        limits: of uploads.
    """
    visits = Visits(lambda path, kept: Session(colorizer, path, limits, kept))
    with gr.Blocks(
        title="disco_fast", analytics_enabled=False, delete_cache=(_SWEEP, _HOUR)
    ) as page:
        visit = gr.State(None, time_to_live=_HOUR, delete_callback=visits.close)
        gr.Markdown(
            "## disco_fast\nColors for gray photographs, by a few anchors that you can change."
        )
        with gr.Row(equal_height=True):
            upload = gr.File(label="Photograph", height=110, elem_id="upload", scale=2)
            status = gr.Textbox(
                _WELCOME, label="Status", interactive=False, lines=2, elem_id="status", scale=3
            )
        with gr.Row():
            with gr.Column():
                gr.Markdown("**Anchors.** Click one to select it, anywhere else to add one.")
                anchors = gr.Image(
                    show_label=False, interactive=False, format="png", elem_id="anchors", buttons=[]
                )
            with gr.Column():
                gr.Markdown("**Gray and color.** Drag the handle.")
                slider = gr.ImageSlider(
                    show_label=False, interactive=False, format="jpeg", elem_id="slider",
                    buttons=["fullscreen"], max_height=LONGEST,
                )  # fmt: skip
        with gr.Row():
            with gr.Column():
                gr.Markdown("**Probable colors** of the selected anchor. Click one to use it.")
                strip = gr.Image(
                    swatches(None), show_label=False, height=76, interactive=False,
                    format="png", elem_id="swatches", buttons=[],
                )  # fmt: skip
                with gr.Row(equal_height=True):
                    color = gr.ColorPicker("#c03030", label="Any color", elem_id="color")
                    use = gr.Button("Use this color", elem_id="use")
                    move = gr.Checkbox(label="Next click moves it", elem_id="move")
                with gr.Row():
                    remove = gr.Button("Remove anchor", elem_id="remove")
                    reset = gr.Button("Start again", elem_id="reset")
            with gr.Column():
                gr.Markdown("**Variants.** Click one to go on with it.")
                gallery = gr.Gallery(
                    show_label=False, columns=VARIANTS, height=215, allow_preview=False,
                    interactive=False, elem_id="variants", buttons=[],
                )  # fmt: skip
                vividness = gr.Slider(
                    0, 1, step=0.05, value=colorizer.vividness, label="Vividness",
                    info="From the most likely colors to vivid ones.", elem_id="vividness",
                )  # fmt: skip
                with gr.Row():
                    prepare = gr.Button("Files at full size", variant="primary", elem_id="prepare")
                    load = gr.UploadButton(
                        "Load anchors (JSON)", file_types=[".json"], elem_id="load"
                    )
                files = gr.File(
                    label="Picture and anchors", interactive=False, elem_id="files", visible=False
                )
        view = [status, anchors, slider, strip]

        def changing(change: Callable[..., None]) -> Callable[..., list[Any]]:
            """An event: change the session, and show it; or say why not."""

            def event(key: str | None, *values: Any) -> list[Any]:
                try:
                    now = visits.session(key) if key else None
                    if now is None:
                        return [_WELCOME, *[gr.skip()] * (len(view) - 1)]
                    change(now, *values)
                    return _view(now)
                except Exception as error:
                    return [_words(error), *[gr.skip()] * (len(view) - 1)]

            return event

        def opened(before: str | None, path: str | None, value: float) -> list[Any]:
            visits.close(before)
            if path is None:
                return _nothing(_WELCOME)
            try:
                key = visits.open(Path(path))
                now = visits.session(key)
                assert now is not None
                if value != now.vividness:
                    now.set_vividness(value)
                return [key, *_view(now), now.variants(), gr.update(value=None, visible=False)]
            except Exception as error:
                return _nothing(_words(error))

        def vivid(key: str | None, value: float) -> list[Any]:
            view = changing(lambda s: s.set_vividness(value))(key)
            now = visits.session(key) if key else None
            return [*view, gr.skip() if now is None else now.variants()]

        def clicked(key: str | None, moving: bool, event: gr.SelectData) -> list[Any]:
            moved = changing(lambda s: s.click(_point(s, event.index), moving is True))(key)
            return [*moved, False]

        def picked(key: str | None, event: gr.SelectData) -> list[Any]:
            return changing(lambda s: s.recolor(_swatch(s, event.index)))(key)

        def varied(key: str | None, event: gr.SelectData) -> list[Any]:
            return changing(lambda s: s.variant(_whole(event.index)))(key)

        def prepared(key: str | None) -> list[Any]:
            try:
                now = visits.session(key) if key else None
                if now is None:
                    return [_WELCOME, gr.skip()]
                files = [str(path) for path in now.save()]
                return [gr.skip(), gr.update(value=files, visible=True)]
            except Exception as error:
                return [_words(error), gr.skip()]

        # One limit for all events together: each would have its own.
        quiet: dict[str, Any] = {
            "show_progress": "minimal",
            "api_visibility": "private",
            "concurrency_id": "network",
        }
        upload.change(opened, [visit, upload, vividness], [visit, *view, gallery, files], **quiet)
        anchors.select(clicked, [visit, move], [*view, move], **quiet)
        strip.select(picked, visit, view, **quiet)
        gallery.select(varied, visit, view, **quiet)
        vividness.release(vivid, [visit, vividness], [*view, gallery], **quiet)
        use.click(changing(Session.recolor), [visit, color], view, **quiet)
        remove.click(changing(Session.remove), visit, view, **quiet)
        reset.click(changing(Session.reset), visit, view, **quiet)
        prepare.click(prepared, visit, [status, files], **quiet)
        load.upload(changing(Session.load), [visit, load], view, **quiet)
    page.queue(api_open=False, default_concurrency_limit=1, max_size=32)
    return page


def _nothing(words: str) -> list[Any]:
    """The page without a photograph."""
    return [None, words, None, None, swatches(None), None, gr.update(value=None, visible=False)]


def _view(now: Session) -> list[Any]:
    """What the page shows of a session: words, anchors, slider, swatches."""
    chosen = None if now.selected is None else now.anchors[now.selected]
    width, height = now.size
    words = f"{width} x {height} pixels, {len(now.anchors)} anchors."
    if chosen is not None:
        words += f" Selected: {chosen.hex}."
    return [
        words,
        with_anchors(now.color, now.anchors, now.selected, now.size),
        (now.gray, now.color),
        swatches(chosen),
    ]


def _words(error: Exception) -> str:
    """What a visitor is told of an error."""
    if isinstance(error, (SessionError, MemoryError)):
        return str(error) or "There is not enough memory for that photograph."
    _log.error("an event failed", exc_info=error)
    return _FAILED


def _point(now: Session, index: Any) -> tuple[float, float]:
    """A click on the shown picture in pixels of the photograph."""
    if not isinstance(index, (list, tuple)) or len(index) != 2:
        raise SessionError("Click on the picture.")
    height, width = now.gray.shape[:2]
    x = (_whole(index[0]) + 0.5) * now.size[0] / width
    y = (_whole(index[1]) + 0.5) * now.size[1] / height
    return min(x, now.size[0] - 0.5), min(y, now.size[1] - 0.5)


def _swatch(now: Session, index: Any) -> Any:
    if now.selected is None:
        raise SessionError("Click an anchor first.")
    x = _whole(index[0] if isinstance(index, (list, tuple)) and index else None)
    return now.anchors[now.selected].palette[swatch_at(x)]


def _whole(number: Any) -> int:
    """A place that a browser has sent; a script may send anything."""
    if not isinstance(number, (int, float)) or not 0 <= number <= 1e6:
        raise SessionError("Click on the picture.")
    return int(number)
