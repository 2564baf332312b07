"""Run MLflow's server (`python -m`, arguments as of `mlflow`) with two changes.

It refuses requests from pages on other local ports. MLflow accepts requests from every page whose host is localhost,
whatever ``--cors-allowed-origins`` says: from any program's page on any port, with the password of whoever is logged
in. And its page can be read on a phone, where MLflow's sidebar and assistant leave it 80 of 390 pixels.
"""

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import mlflow.server
from mlflow.cli import cli
from mlflow.server.security_utils import is_localhost_origin

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
REFUSAL = b"refused: this server takes requests from its own pages only\n"
NARROW = Path(__file__).with_name("narrow.html").read_bytes()


def own_pages(app: App) -> App:
    """Make an ASGI application that answers 403 to localhost pages of other servers; MLflow itself refuses other hosts.

    A page is its own if its origin names the host and port that the request was sent to, for example through a tunnel.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        origin, host = (headers.get(name, b"").decode("latin-1") for name in (b"origin", b"host"))
        if scope["type"] != "http" or not is_localhost_origin(origin) or urlsplit(origin).netloc == host:
            await app(scope, receive, send)
            return
        plain = [(b"content-type", b"text/plain"), (b"content-length", str(len(REFUSAL)).encode())]
        await send({"type": "http.response.start", "status": 403, "headers": plain})
        await send({"type": "http.response.body", "body": REFUSAL})

    return answer


def narrow_pages(app: App) -> App:
    """Make an ASGI application whose page, MLflow's only one, has styles for narrow screens (`narrow.html`)."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].endswith("/"):
            await app(scope, receive, send)
            return
        messages: list[MutableMapping[str, Any]] = []

        async def keep(message: MutableMapping[str, Any]) -> None:
            messages.append(message)

        await app(scope, receive, keep)
        start, *parts = messages
        body = b"".join(part.get("body", b"") for part in parts).replace(b"</head>", NARROW + b"</head>", 1)
        of_old = (b"content-length", b"etag", b"last-modified")  # a browser would keep the page without the styles
        headers = [(name, value) for name, value in start["headers"] if name.lower() not in of_old]
        await send({**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})

    return answer


def app() -> App:
    """Server application without passwords."""
    from mlflow.server.fastapi_app import app as of_mlflow

    return own_pages(narrow_pages(of_mlflow))


def app_with_passwords() -> App:
    """Server application with MLflow's `basic-auth`."""
    from mlflow.server.auth import create_app

    return own_pages(narrow_pages(create_app()))


def _refuse() -> NoReturn:
    """Exit, because this version of MLflow would serve its own application without `own_pages`."""
    sys.exit(f"error: MLflow {mlflow.__version__} starts its server in a way that fnostab does not know: install 3.17")


def _main() -> None:
    """Run MLflow's command line, with its server application replaced by one of the two above."""
    instead = {"mlflow.server.fastapi_app:app": "app", "mlflow.server.auth:create_app": "app_with_passwords"}
    build = getattr(mlflow.server, "_build_uvicorn_command", None) or _refuse()

    def command(options: str | None, host: str, port: int, workers: int, its: str, *more: Any) -> list[str]:
        if its not in instead:
            _refuse()
        factory = f"fnostab.tracking.pages.mlflow_server:{instead[its]}"
        env_file = more[:1]
        return list(build(options, host, port, workers, factory, *env_file, is_factory=True))

    mlflow.server._build_uvicorn_command = command
    cli()


if __name__ == "__main__":
    _main()
