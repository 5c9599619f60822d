"""The page itself, in Gradio, which is told to send nothing and to load nothing from elsewhere."""

import os
from collections.abc import Callable, Sequence
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read wherever Gradio would send

try:
    import gradio as gr
except ImportError as error:
    raise ImportError("The page needs Gradio: pip install 'lxmert-tf[web]'.") from error

from lxmert_tf.command_line import option, sentence
from lxmert_tf.explain.names import METHODS
from lxmert_tf.explain.scene import Scene
from lxmert_tf.web.asking import MAX_QUESTION, Asked, Asking
from lxmert_tf.web.rendering import CSS, render_answers, render_boxes, render_picture, render_relevance

QUESTIONS = 2
LISTED = 1000  # names of images that the page lists; others are typed
WAITING = 20  # visitors; more are told to come back
SHOWN = 20  # seconds that a message is shown
CAUSED = (ValueError, OSError, MemoryError)  # what a visitor can cause
KEPT = 3600  # seconds that what visitors send and see is kept
FONT = ("system-ui", "sans-serif")


def make_page(asking: Asking, images: Sequence[str] | None = None) -> gr.Blocks:
    """The page.

    Args:
        asking: what answers.
        images: names of the pictures to choose from. Default: pictures are uploaded.
    """
    with gr.Blocks(title="Ask a picture", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gr.Markdown("# Ask a picture\nLXMERT answers, and shows which words and which parts of the picture count.")
        asked = gr.State(None, time_to_live=KEPT)
        with gr.Row():
            with gr.Column(min_width=300):
                picture = _upload(asking.check) if images is None else _choice(images, asking.see)
            with gr.Column(min_width=300):
                labels = ("Question", "Another question, to compare (optional)")
                questions = [
                    gr.Textbox(label=label, lines=1, max_length=MAX_QUESTION, elem_id=f"question{number}")
                    for number, label in enumerate(labels, 1)
                ]
                method = gr.Dropdown(
                    [(name.replace("_", " "), name) for name in METHODS],
                    value=METHODS[0],
                    label="Relevance by",
                    elem_id="method",
                )
                button = gr.Button("Ask", variant="primary", elem_id="ask")
        with gr.Row(elem_id="panels"):
            panels = [_Panel(number) for number in range(1, QUESTIONS + 1)]

        answers = [panel.answer for panel in panels]
        shown = [asked, *(part for panel in panels for part in panel.parts)]
        options: dict[str, Any] = {
            "outputs": shown,
            "api_visibility": "private",
            "concurrency_limit": 1,
            "concurrency_id": "model",
            "show_progress_on": [panels[0].boxes],
        }

        @_in_words
        def ask(picture: str | None, first: str, second: str, method: str, before: Asked | None) -> list[Any]:
            return _updates(asking.ask(picture, [first, second], method, before))

        @_in_words
        def explain(method: str, before: Asked | None, *answers: str | None) -> list[Any]:
            if before is None:
                return [gr.skip()] * len(shown)
            return _updates(asking.explain(before, answers, method))

        asks = [button.click, *(question.submit for question in questions)]
        gr.on(asks, ask, [picture, *questions, method, asked], **options)
        gr.on([method.input, *(answer.input for answer in answers)], explain, [method, asked, *answers], **options)
    return page


class _Panel:
    """An answered question."""

    def __init__(self, number: int):
        with gr.Column(min_width=300, visible=False, elem_id=f"panel{number}") as self.column:
            self.answers = gr.HTML(elem_id=f"answers{number}")
            self.answer = gr.Dropdown(
                [],
                label="Explain the answer (one of these, or type another)",
                allow_custom_value=True,
                elem_id=f"answer{number}",
            )
            self.boxes = gr.Image(
                type="pil",
                interactive=False,
                show_label=False,
                buttons=["download", "fullscreen"],
                alt_text="the picture with its boxes, the wider and lighter the more they count",
                elem_id=f"boxes{number}",
            )
            self.relevance = gr.HTML(elem_id=f"relevance{number}")
        self.parts = [self.column, self.answers, self.answer, self.boxes, self.relevance]


def _updates(asked: Asked) -> list[Any]:
    """What has been asked, and the parts of the panels."""
    updates: list[Any] = [asked]
    for why in asked.explanations:
        updates += [
            gr.Column(visible=True),
            render_answers(why),
            gr.Dropdown([name for name, _ in why.answers], value=why.answer),
            render_boxes(why),
            render_relevance(why),
        ]
    for _ in range(QUESTIONS - len(asked.explanations)):
        updates += [gr.Column(visible=False), "", gr.Dropdown([], value=None), None, ""]
    return updates


def _upload(check: Callable[[str], None]) -> gr.Image:
    """An upload, which comes as it is; what is no picture is taken away at once."""
    upload = gr.Image(label="Picture", sources=["upload", "clipboard"], height=320, elem_id="picture")

    def path_of(payload: Any) -> str | None:
        return None if payload is None else payload.path

    # Not in a subclass, beside whose file Gradio would write another. It is lost where an event returns a `gr.Image`.
    upload.preprocess = path_of  # type: ignore[method-assign]

    checked = upload.upload(_in_words(check), upload, api_visibility="private", show_progress="hidden")
    checked.failure(lambda: None, outputs=upload, api_visibility="private", show_progress="hidden")
    return upload


def _choice(images: Sequence[str], see: Callable[[str], Scene]) -> gr.Dropdown:
    """A list of pictures, which shows the chosen one."""
    more = f" (the first {LISTED:,} of {len(images):,}; others can be typed)" if len(images) > LISTED else ""
    names, typed = list(images[:LISTED]), len(images) > LISTED
    choice = gr.Dropdown(names, label=f"Picture{more}", allow_custom_value=typed, elem_id="picture")
    preview = gr.Image(type="pil", interactive=False, show_label=False, buttons=[], height=240, elem_id="preview")

    @_in_words
    def show(name: str) -> Any:
        return render_picture(see(name))

    gr.on([choice.change], show, choice, preview, api_visibility="private", show_progress="hidden")
    return choice


def _in_words(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose errors that a visitor can cause are shown as a sentence."""

    def called(*args: Any) -> Any:
        try:
            return function(*args)
        except CAUSED as error:
            raise gr.Error(sentence(error), duration=SHOWN, print_exception=False) from error

    return called


def open_page(page: gr.Blocks, host: str = "127.0.0.1", port: int | None = None, max_megabytes: float = 10) -> str:
    """Serves the page from another thread, until `page.close()`.

    Args:
        page: of `make_page`.
        host: the address to listen at; others than this machine's are open to all who reach it.
        port: default: the first that is free from 7860 on.
        max_megabytes: of an uploaded file.

    Returns:
        The page's address.

    Raises:
        OSError: the port is taken.
    """
    page.queue(max_size=WAITING, api_open=False)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            max_file_size=round(max_megabytes * 2**20),
            theme=gr.themes.Default(font=FONT, font_mono=("ui-monospace", "monospace")),
            css=CSS,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
            share=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            run_history=False,
            enable_monitoring=False,
            state_session_capacity=WAITING,
        )
    except OSError as error:  # Gradio's message is about variables of its own
        raise OSError(f"{host} port {port or '7860 to 7959'} is taken; choose another ({option('port')}).") from error
    return str(page.local_url)
