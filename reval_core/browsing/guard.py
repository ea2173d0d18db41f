"""What every answer of the browser is subject to, whatever a model wrote into the store.

A page may load nothing but the style sheet of this server: no script, no image, no frame. A request must name this
server as its host, so that a name that someone lets lead to 127.0.0.1 opens nothing here (DNS rebinding), must only
read, and must not come from inside another site's page.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses what must not be answered, and puts `HEADERS` on every answer.

    Args:
        app: what answers.
        port: of this server on 127.0.0.1.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        if port == 80:
            self._hosts |= {"127.0.0.1", "localhost"}  # which browsers leave out

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return
        refused = self._refused(scope["method"], Headers(scope=scope))
        await (refused or self._app)(scope, receive, with_headers(send))

    def _refused(self, method: str, headers: Headers) -> PlainTextResponse | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return PlainTextResponse(f"This server is called {' or '.join(sorted(self._hosts))}.\n", 421)
        if method not in ("GET", "HEAD"):
            return PlainTextResponse("Pages are only read here.\n", 405, {"Allow": "GET, HEAD"})
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return PlainTextResponse("Other sites may link to these pages, not load them.\n", 403)
        return None


def with_headers(send: Send) -> Send:
    """The same, with the headers on the beginning of the answer."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return sent
