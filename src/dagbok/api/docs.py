"""`/docs`: the OpenAPI document as one page of plain HTML, without script and without anything from another server."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from dagbok.api.problems import CODES

_STYLE: Final = """
:root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}body{max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font:13px/1.45 ui-monospace,monospace}pre{overflow:auto;padding:.7rem;border:1px solid #8885;border-radius:6px}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;vertical-align:top;padding:.25rem .6rem;border-top:1px solid #8885}
h2{margin-top:2.5rem}h3{margin-top:2rem}summary{cursor:pointer}:target{background:#fc03}
"""
#: What the page may load: its own style, nothing else.
CSP: Final = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page(document: Mapping[str, Any]) -> bytes:
    """Return the page that shows an OpenAPI document."""
    return "".join(_page(document)).encode()


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    title = escape(f"{document['info']['title']} API {document['info']['version']}")
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><h1>{title}</h1>'
    yield from (f"<p>{_text(part)}</p>" for part in document["info"]["description"].strip().split("\n\n"))
    yield '<p>For machines: <a href="/api/v1/openapi.json"><code>/api/v1/openapi.json</code></a> (OpenAPI 3.1).</p>'
    tags: dict[str, list[str]] = {tag["name"]: [f"<p>{_text(tag['description'])}</p>"] for tag in document["tags"]}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tags[operation["tags"][0]] += _operation(method, path, operation)
    for name, parts in tags.items():
        yield f"<h2>{escape(name.capitalize())}</h2>"
        yield from parts
    yield "<h2>Problems</h2><table><tr><th>code<th></tr>"
    yield from (f'<tr id="{code}"><td><code>{code}</code><td>{_text(text)}</tr>' for code, text in CODES.items())
    yield "</table></body></html>"


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f'<h3 id="{escape(operation["operationId"])}"><code>{method.upper()} {escape(path)}</code></h3>'
    yield f"<p><b>{_text(operation['summary'])}</b> {_text(operation.get('description', ''))}</p>"
    if parameters := operation.get("parameters"):
        yield "<table>"
        for parameter in parameters:
            yield f"<tr><td><code>{escape(parameter['name'])}</code><td>{escape(parameter['in'])}"
            yield f"<td>{_text(parameter.get('description', ''))}</tr>"
        yield "</table>"
    body = operation.get("requestBody", {}).get("content", {})
    for content in body.values():
        for example in content["examples"].values():
            yield _example(f"Request: {example['summary']}", example["value"])
    for status, response in operation["responses"].items():
        for content in response.get("content", {}).values():
            yield _example(f"{status} {response['description']}", content.get("example"))


def _example(title: str, value: Any) -> str:
    shown = escape(json.dumps(value, indent=2, ensure_ascii=False))
    return f"<details><summary>{_text(title)}</summary><pre>{shown}</pre></details>"


def _text(text: str) -> str:
    """Return text with `code` marked; the one piece of Markdown that our descriptions use."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
