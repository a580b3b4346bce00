"""What MkDocs makes of the code: the reference of the tables and of the web API.

The command line and the IO manager have plugins of their own, `mkdocs-click` and `mkdocstrings`.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import sqlalchemy as sa
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from sqlalchemy.dialects import mysql

from batch_assets.api.application import application
from batch_assets.database.schema.tables import JSON_TEXT, item_table, metadata
from batch_assets.pipeline import ITEM_TABLE

Schema = Mapping[str, Any]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that come from the code."""
    for path, lines in (("reference/tables.md", tables_page()), ("reference/web-api.md", web_api_page())):
        files.append(File.generated(config, path, content="\n".join(lines)))
    return files


def tables_page() -> Iterator[str]:
    """Yields the lines of the page on the tables, from the metadata of SQLAlchemy."""
    yield "# Tables"
    yield (
        "\n`batch-assets init-db` creates these tables and adopts an `items` table that is there. The types are those"
        " of MySQL and MariaDB. Times are UTC.\n"
    )
    for table in (item_table(ITEM_TABLE), *metadata.tables.values()):
        yield f"## {table.name}\n\n{table.info['doc']}\n"
        yield from _table(
            ("column", "type", "meaning"),
            ((f"`{column.name}`", _column_type(column), column.doc or "") for column in table.columns),
        )
    yield (
        "`items` also gets an index on `created_datetime` if it has none, and the invisible column"
        " `prediction_pending` with an index, by which pending items are found at once."
    )


def _column_type(column: sa.Column[Any]) -> str:
    name = "JSON" if column.type is JSON_TEXT else column.type.compile(mysql.dialect())
    if column.primary_key:
        return f"{name}, primary key"
    return f"{name} or NULL" if column.nullable else name


def web_api_page() -> Iterator[str]:
    """Yields the lines of the page on the web API, from its OpenAPI document."""
    with tempfile.TemporaryDirectory() as folder:
        document = application({"BATCH_ASSETS_HOME": folder}).openapi()
    yield "# Web API"
    yield (
        "\n`batch-assets serve` answers these requests; see [Register items](../guides/register-items.md). A running"
        " API shows the same at `/docs`, where you can try each request, and its OpenAPI document at `/openapi.json`.\n"
    )
    yield (
        "A [declared pipeline](../guides/declare-pipelines.md#over-http) has the requests on items, hours and the model"
        " beneath `/pipelines/NAME`, with types of its own, which the running API shows.\n"
    )
    yield document["info"]["description"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield from _operation(f"{method.upper()} {path}", operation)
    yield "## Bodies\n"
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield f"### {name}\n\n{schema.get('description', '')}\n"
        yield from _table(("field", "type", "meaning"), _fields(schema))


def _operation(title: str, operation: Schema) -> Iterator[str]:
    yield f"## {title}\n\n{operation.get('description') or operation['summary']}\n"
    if operation.get("security"):
        yield "Needs the header `X-API-Key`.\n"
    parameters = [
        (f"`{parameter['name']}`", parameter["in"], _type(parameter["schema"]), parameter.get("description", ""))
        for parameter in operation.get("parameters", [])
    ]
    yield from _table(("parameter", "in", "type", "meaning"), parameters)
    body = operation.get("requestBody")
    if body:
        yield f"Body: {_content(body)}\n"
    yield from _table(
        ("status", "meaning", "body"),
        ((status, _meaning(status, answer), _content(answer)) for status, answer in operation["responses"].items()),
    )


def _meaning(status: str, answer: Schema) -> str:
    # What FastAPI says of every good answer says nothing.
    text: str = answer["description"]
    return HTTPStatus(int(status)).phrase if text == "Successful Response" else text


def _content(message: Schema) -> str:
    return ", ".join(_type(content["schema"]) for content in message.get("content", {}).values())


def _fields(schema: Schema) -> Iterator[tuple[str, str, str]]:
    for name, field in schema.get("properties", {}).items():
        meaning = str(field.get("description", ""))
        if field.get("examples"):
            meaning += f" Example: `{field['examples'][0]}`."
        yield f"`{name}`", _type(field), meaning.strip()


def _type(schema: Schema) -> str:
    """Returns the type of a value in a few words, with a link where it has a name."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(part) for part in schema["anyOf"]))
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}" if schema.get("items") else "list"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_type(schema['additionalProperties'])}"
    bounds = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return " ".join([str(schema.get("type", "any value")), *bounds])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yields a table in Markdown, nothing if it has no rows."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    if cells:
        yield from (f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *cells))
        yield ""
