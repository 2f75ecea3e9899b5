"""`/docs`: the API as a plain page made from its OpenAPI document.

FastAPI's own page loads its scripts from a public network, which a police network does not reach and should not trust.
This one has no script at all.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import orjson
from fastapi import FastAPI, Response
from jinja2 import Environment
from markupsafe import Markup

_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'self'; frame-ancestors 'none'"}
_METHODS = ("get", "post", "put", "patch", "delete")


def add_api_page(app: FastAPI) -> None:
    """Serve `/docs` and its style sheet."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["pretty"] = _pretty
    environment.filters["typename"] = _typename
    environment.filters["code"] = _code
    template = environment.from_string(_packaged("api_page.html"))
    style = _packaged("api_page.css")

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        document = app.openapi()
        page = template.render(api=document, operations=_operations(document))
        return Response(page, media_type="text/html", headers=_HEADERS)

    @app.get("/docs/style.css", include_in_schema=False)
    def docs_style() -> Response:
        return Response(style, media_type="text/css")


def _packaged(name: str) -> str:
    return resources.files("services.shared").joinpath(name).read_text("utf-8")


def _operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Every operation with its method and path; of a body the form that it has to have."""
    return [
        {**operation, "method": method.upper(), "path": path, "form": _form(operation)}
        for path, item in document.get("paths", {}).items()
        for method, operation in item.items()
        if method in _METHODS
    ]


def _form(operation: dict[str, Any]) -> dict[str, Any] | None:
    content = operation.get("requestBody", {}).get("content", {})
    for media_type, body in content.items():
        return {**body, "media_type": media_type}
    return None


def _pretty(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def _typename(schema: dict[str, Any]) -> str:
    """A schema in a word or two, as in "list of integer" or "AnsweredCandidate"."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return " or ".join(_typename(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return f'"{schema["const"]}"'
    if schema.get("type") == "array":
        return f"list of {_typename(schema.get('items', {}))}"
    return "file" if schema.get("format") == "binary" else str(schema.get("type", "anything"))


def _code(text: str) -> Markup:
    """Text with its `code` marked up; everything else stays text."""
    parts = (
        Markup("<code>{}</code>").format(part) if i % 2 else Markup.escape(part)
        for i, part in enumerate(text.split("`"))
    )
    return Markup("").join(parts)
