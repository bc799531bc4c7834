"""The page: what is where on it, and what a click does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from ..colorizer import Colorizer
from .drawing import LONGEST, shown, swatch_at, swatches, with_anchors
from .session import VARIANTS, Limits, Session, SessionError

_HOUR = 3600
_TITLE = "## disco_fast\nColours for gray photographs, by a few anchors that you can change."
_WELCOME = "Drop a photograph to begin."
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
    with gr.Blocks(
        title="disco_fast", analytics_enabled=False, delete_cache=(_HOUR, _HOUR)
    ) as page:
        session = gr.State(None, time_to_live=_HOUR)
        gr.Markdown(
            "## disco_fast\nColours for gray photographs, by a few anchors that you can change."
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
                gr.Markdown("**Gray and colour.** Drag the handle.")
                slider = gr.ImageSlider(
                    show_label=False, interactive=False, format="jpeg", elem_id="slider",
                    buttons=["fullscreen"], max_height=LONGEST,
                )  # fmt: skip
        with gr.Row():
            with gr.Column():
                gr.Markdown("**Probable colours** of the selected anchor. Click one to use it.")
                strip = gr.Image(
                    swatches(None), show_label=False, height=76, interactive=False,
                    format="png", elem_id="swatches", buttons=[],
                )  # fmt: skip
                with gr.Row(equal_height=True):
                    color = gr.ColorPicker("#c03030", label="Any colour", elem_id="color")
                    use = gr.Button("Use this colour", elem_id="use")
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
                    info="From the most likely colours to vivid ones.", elem_id="vividness",
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

            def event(now: Session | None, *values: Any) -> list[Any]:
                if now is None:
                    return [_WELCOME, *[gr.skip()] * (len(view) - 1)]
                try:
                    change(now, *values)
                except SessionError as error:
                    return [str(error), *[gr.skip()] * (len(view) - 1)]
                return _view(now)

            return event

        def opened(path: str | None, value: float) -> list[Any]:
            if path is None:
                return _nothing(_WELCOME)
            try:
                now = Session(colorizer, path, limits, value)
            except (SessionError, MemoryError) as error:
                return _nothing(str(error))
            return [now, *_view(now), _variants(now), gr.update(value=None, visible=False)]

        def vivid(now: Session | None, value: float) -> list[Any]:
            view = changing(lambda s: s.set_vividness(value))(now)
            return [*view, gr.skip() if now is None else _variants(now)]

        def clicked(now: Session | None, moving: bool, event: gr.SelectData) -> list[Any]:
            moved = changing(lambda s: s.click(_point(s, event.index), moving))(now)
            return [*moved, False]

        def picked(now: Session | None, event: gr.SelectData) -> list[Any]:
            return changing(lambda s: s.recolor(_swatch(s, event.index[0])))(now)

        def varied(now: Session | None, event: gr.SelectData) -> list[Any]:
            return changing(lambda s: s.variant(event.index))(now)

        def prepared(now: Session | None) -> Any:
            if now is None:
                return gr.skip()
            return gr.update(value=[str(path) for path in now.save()], visible=True)

        quiet: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}
        upload.change(opened, [upload, vividness], [session, *view, gallery, files], **quiet)
        anchors.select(clicked, [session, move], [*view, move], **quiet)
        strip.select(picked, session, view, **quiet)
        gallery.select(varied, session, view, **quiet)
        vividness.release(vivid, [session, vividness], [*view, gallery], **quiet)
        use.click(changing(Session.recolor), [session, color], view, **quiet)
        remove.click(changing(Session.remove), session, view, **quiet)
        reset.click(changing(Session.reset), session, view, **quiet)
        prepare.click(prepared, session, files, **quiet)
        load.upload(
            changing(lambda s, path: s.load(Path(path).read_text(errors="replace"))),
            [session, load], view, **quiet,
        )  # fmt: skip
    page.queue(default_concurrency_limit=1, max_size=32)
    return page


def _nothing(words: str) -> list[Any]:
    """The page without a photograph."""
    return [None, words, None, None, swatches(None), None, gr.update(value=None, visible=False)]


def _variants(now: Session) -> list[np.ndarray]:
    return [shown(pixels) for pixels in now.variants()]


def _view(now: Session) -> list[Any]:
    """What the page shows of a session: words, anchors, slider, swatches."""
    color = shown(now.result)
    chosen = None if now.selected is None else now.anchors[now.selected]
    width, height = now.size
    words = f"{width} x {height} pixels, {len(now.anchors)} anchors."
    if chosen is not None:
        words += f" Selected: {chosen.hex}."
    return [
        words,
        with_anchors(color, now.anchors, now.selected, now.size),
        (shown(now.gray), color),
        swatches(chosen),
    ]


def _point(now: Session, index: Any) -> tuple[float, float]:
    """A click on the shown picture in pixels of the photograph."""
    height, width = shown(now.gray).shape[:2]
    x, y = (index[0] + 0.5) * now.size[0] / width, (index[1] + 0.5) * now.size[1] / height
    return min(x, now.size[0] - 0.5), min(y, now.size[1] - 0.5)


def _swatch(now: Session, x: int) -> Any:
    if now.selected is None:
        raise SessionError("Click an anchor first.")
    return now.anchors[now.selected].palette[swatch_at(x)]
