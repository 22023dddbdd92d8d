"""A web page to search an index of music and to listen to what is found.

Everything that the page needs is inside it: it works without a network. Audio is named
by its number in the index. The index may be from a stranger: nothing but audio below
its folders is given out.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    PlainTextResponse,
    Response,
)
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.middleware.trustedhost import TrustedHostMiddleware

from muq_plugins.data.audio import AudioError, audio_info
from muq_plugins.errors import UserError, shown
from muq_plugins.inference.folders import UNKNOWN
from muq_plugins.inference.index.search import (
    NOTHING_CLEAR,
    MusicIndex,
    embed_query,
    find_example,
    find_folder,
    query_text,
)
from muq_plugins.inference.index.store import Entry
from muq_plugins.inference.index.update import is_below
from muq_plugins.lobes.mulan import TextModel

# What browsers call the formats that they play.
MEDIA_TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
    ".aac": "audio/aac",
    ".webm": "audio/webm",
}
OTHER_TYPE = "audio/aiff"
# Of all that is given out: browsers take it for what it is, and for this page alone.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Files whose names, and whose folders, the boxes of the page suggest.
SUGGESTED = 1000
# A host name that resolves to this machine must not open the page to other sites.
LOCAL_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
EVERYWHERE = ("0.0.0.0", "::")

Number = Annotated[int, Query(ge=1, lt=1 << 63)]


def make_app(
    index: MusicIndex, model: TextModel | None, top: int = 10, host: str = "127.0.0.1"
) -> FastAPI:
    """Makes the web application, for uvicorn or any other server.

    `model` is the one that the index was made with; None if it embeds no texts.
    Requests for another host than `host` are refused, unless it is all addresses.
    """
    # No generated pages about the interface: they would load scripts from elsewhere.
    app = FastAPI(openapi_url=None, dependencies=[Depends(_refuse_other_sites)])
    own = f"[{host}]" if ":" in host else host
    hosts = ["*"] if host in EVERYWHERE else [*LOCAL_HOSTS, own]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    page = _Page(index, model, top)

    @app.exception_handler(UserError)
    def explain(_: Request, error: UserError) -> Response:
        return PlainTextResponse(str(error), 500)

    @app.get("/", response_class=HTMLResponse)
    def show(
        q: str | None = None,
        file: str | None = None,
        like: Number | None = None,
        folder: str = "",
    ) -> Response:
        return page.show(q, file, like, folder)

    @app.api_route("/audio/{id}", methods=["GET", "HEAD"])
    def play(id: Annotated[int, Path(ge=1, lt=1 << 63)]) -> Response:
        return page.play(id)

    return app


class _Page:
    """Answers requests."""

    def __init__(self, index: MusicIndex, model: TextModel | None, top: int):
        self.index = index
        self.model = model
        self.top = top
        # One query computes at a time: two would only slow each other down.
        self.lock = threading.Lock()
        environment = Environment(
            loader=PackageLoader("muq_plugins.inference", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["clock"] = _clock
        environment.globals["plays"] = _plays
        self.template = environment.get_template("search.html.j2")

    def show(
        self, text: str | None, file: str | None, like: int | None, folder: str
    ) -> Response:
        """The page, with the answers to a query if there is one."""
        answer: dict[str, Any] = {"found": None, "example": None, "notices": []}
        error, status = "", 200
        try:
            below = find_folder(self.index, folder) if folder.strip() else None
            if like is not None or file is not None:
                example = answer["example"] = self._example(file, like)
                vector = self.index.vector(example)
                answer["found"] = self.index.search(vector, self.top, example, below)
            elif text is not None:
                words = query_text(self.index, text)
                with self.lock, _warnings() as answer["notices"]:
                    vector = embed_query(self.model, words)
                answer["found"], clear = self.index.search_and_judge(
                    vector, self.top, below=below
                )
                if clear is False:
                    answer["notices"].append(NOTHING_CLEAR)
        except ValueError as problem:
            error = str(problem)
            status = 400 if isinstance(problem, UserError) else 500
        asked = {"q": text, "file": file, "like": like}
        asked = {name: value for name, value in asked.items() if value is not None}
        return self._render(
            status,
            error=error,
            text=text,
            file=file,
            asked=asked,
            folder=folder if folder.strip() else "",
            **answer,
        )

    def play(self, id: int) -> Response:
        """The audio of an indexed file; browsers ask for it in parts."""
        entry = self.index.store.entry(id)
        if entry is None:
            raise HTTPException(404, "No indexed file has this number.")
        if not entry.is_current():
            raise HTTPException(
                410, "The file has changed or gone: run `muq-plugins index` again."
            )
        if not _may_be_given_out(entry, self.index.store.folders()):
            raise HTTPException(403, "Only audio below the indexed folders is given.")
        return FileResponse(
            entry.path,
            media_type=MEDIA_TYPES.get(_extension(entry), OTHER_TYPE),
            headers=HEADERS,
        )

    def _example(self, file: str | None, like: int | None) -> Entry:
        if like is None:
            with self.lock:
                return find_example(self.index, file or "")
        entry = self.index.store.entry(like)
        if entry is None:
            raise UserError(
                f"No indexed file has the number {like} any more: search again."
            )
        return entry

    def _render(self, status: int, **content: Any) -> Response:
        nonce = secrets.token_urlsafe(16)
        store = self.index.store
        top = store.common_folder()

        def place(entry: Entry) -> str:
            """Where a file is, below the folder that all are in."""
            return shown(os.path.relpath(entry.path, top))

        names = [place(entry) for entry in store.entries(SUGGESTED)]
        folders = {str(above) for name in names for above in PurePath(name).parents}
        html = self.template.render(
            content,
            nonce=nonce,
            size=len(self.index),
            takes_texts=self.index.takes_texts,
            problems=len(store.problems()),
            # A run folder ends with its seed, and a hub id begins with its owner.
            trained_on=getattr(self.model, "trained_on", UNKNOWN),
            model="/".join(PurePath(store.model).parts[-2:]),
            space=store.space.name,
            names=names,
            folders=sorted(folders - {"."}),
            place=place,
        )
        policy = (
            f"default-src 'none'; media-src 'self'; form-action 'self'; img-src data:; "
            f"style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; base-uri 'none'; "
            f"frame-ancestors 'none'"
        )
        headers = {
            **HEADERS,
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        return HTMLResponse(html, status, headers)


def _refuse_other_sites(request: Request) -> None:
    """Another site may lead to the page, and neither search in it nor embed audio."""
    asked = request.url.path != "/" or request.url.query
    if asked and request.headers.get("sec-fetch-site") == "cross-site":
        raise HTTPException(
            403, "Another site has asked for this: open the page, and search there."
        )


def _may_be_given_out(entry: Entry, folders: list[str]) -> bool:
    """Whether this is audio, and where its index says that it has found music."""
    # Links are followed in the index too, but ".." in a path leads elsewhere.
    path = os.path.normpath(entry.path)
    if not any(is_below(path, folder) for folder in folders):
        return False
    try:
        audio_info(path)
    except AudioError:
        return False
    return path == entry.path


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collects what is logged inside, such as that a text was cut."""
    notices: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: notices.append(record.getMessage())
    logger = logging.getLogger("muq_plugins")
    logger.addHandler(handler)
    try:
        yield notices
    finally:
        logger.removeHandler(handler)


def _extension(entry: Entry) -> str:
    return os.path.splitext(entry.path)[1].lower()


def _plays(entry: Entry) -> bool:
    return _extension(entry) in MEDIA_TYPES


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"
