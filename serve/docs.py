"""The page at /docs, made of the OpenAPI document without outside hosts."""

import html as escape
import re
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.requests import Request

_HOST = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def commands(
    openapi: Mapping[str, Any], base: str, known: Mapping[str, str]
) -> Iterator[tuple[str, str, Mapping[str, Any], str]]:
    """Method, path, description and a curl command for each route.

    Args:
        openapi: the document.
        base: address of the service.
        known: a ``condition`` that its generator draws, and the ``version`` of its focus model.
    """
    for path, methods in openapi["paths"].items():
        for method, about in methods.items():
            command = about.get("x-curl", f"curl '{{base}}{_filled(path)}'")
            for name, value in {"base": base, **known}.items():
                command = command.replace(f"{{{name}}}", value)
            yield method.upper(), path, about, command


def _filled(path: str) -> str:
    model = path.replace("/v2/models/{name}", "/v2/models/focus")
    return model.replace("{job}", "0123456789abcdef" * 2).replace("{name}", "overlay.png")


def base_of(request: Request) -> str:
    """The address at which the service was asked, fit for a command; a Host that is no plain one is not repeated."""
    host = request.headers.get("host", "")
    known = f"{request.url.scheme}://{host}" if _HOST.fullmatch(host) else "http://127.0.0.1:8000"
    return known + str(request.scope.get("root_path", "")).rstrip("/")


def html(openapi: Mapping[str, Any], base: str, known: Mapping[str, str]) -> str:
    """The page.

    Args:
        openapi: the document.
        base: address of the service in the commands.
        known: what else stands in them, as :func:`commands` has it.
    """
    parts = []
    for method, path, about, command in commands(openapi, base, known):
        rows = [
            f"<li><code>{_text(one['name'])}</code> ({one['in']}) {_text(one.get('description', ''))}</li>"
            for one in about.get("parameters", ())
        ]
        kinds = ", ".join(about.get("requestBody", {}).get("content", {}))
        parts.append(
            f"<section><h2><code>{method} {_text(path)}</code></h2><p>{_text(about.get('summary', ''))}. "
            f"{_text(about.get('description', ''))}</p>"
            + (f"<p>Body: {_text(kinds)}</p>" if kinds else "")
            + (f"<ul>{''.join(rows)}</ul>" if rows else "")
            + f"<pre tabindex=0>{_text(command)}</pre></section>"
        )
    info = openapi["info"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>medsynth: HTTP</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="page/page.css"></head>'
        f"<body><main><h1>medsynth {_text(info['version'])}: HTTP</h1><p>{_text(info['description'])}</p>"
        '<p>Machine-readable: <a href="openapi.json">/openapi.json</a>. Try it: <a href="./">the page</a>. Where '
        "tokens are demanded, add <code>-H 'Authorization: Bearer TOKEN'</code>. Errors are "
        "<code>application/problem+json</code>.</p>" + "".join(parts) + "</main></body></html>"
    )


def _text(value: object) -> str:
    return escape.escape(str(value))
