"""The review queue over HTTP: look at what is kept, label it, delete it, and take the labelled away.

What is kept is what callers sent, so who may not change what is served may not see it either.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

import orjson
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from bundle.archive import save_arrays
from bundle.datatypes import check_json_form
from bundle.encoding import encode_media, media_type_of
from bundle.errors import InputError
from bundle.manifest import Manifest
from bundle.rows import Row
from service.api import paths  # noqa: F401 - the routes below use its convertor
from service.api.body import read_body
from service.api.inputs import JSON, OCTETS
from service.api.origin import refuse_foreign_names, refuse_foreign_pages
from service.api.requests import record_of
from service.errors import ModelControlError, ReviewOffError, ReviewStoreError, UnknownModelError
from service.registry import Registry
from service.review.export import export, manifest_of, read_row
from service.review.items import Item
from service.review.store import Order, Store, open_store
from service.settings import Settings

T = TypeVar("T")

_PIECE_BYTES = 1 << 16
# What stays in memory of a data set while it is written; the rest goes to a file that has no name.
_SPOOLED_BYTES = 1 << 22
# No cache between here and whoever asked keeps what callers sent.
_PRIVATE = {"cache-control": "no-store"}
_MEDIA = {"png": "image/png", "wav": "audio/wav", "text": "text/plain"}


def check_access(request: Request) -> None:
    """Refuse a call where nothing is kept, or where it comes from somewhere that may not see what is.

    Raises:
        ReviewOffError, ModelControlError: it is refused.
    """
    settings: Settings = request.app.state.settings
    if settings.review_url is None:
        raise ReviewOffError("no inputs are kept for review here; OCTET_REVIEW_URL names a store for them")
    if not settings.takes_commands:
        raise ModelControlError(
            "the review queue cannot be reached through this server; OCTET_MODEL_CONTROL=explicit allows it"
        )
    refuse_foreign_pages(request)
    if settings.api_keys_file is None:  # no page of another site knows a key
        refuse_foreign_names(request)


router = APIRouter(dependencies=[Depends(check_access)])


class ListParameters(BaseModel):
    """The query parameters of a list."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    labelled: bool | None = None
    """Only those that have a label, or only those that have none; by default both."""
    order: Order = "sureness"
    """Least sure first ("sureness"), lowest confidence first ("confidence"), or "newest" first."""
    limit: int = Field(default=100, ge=1, le=1000)
    """Most inputs in one answer."""
    offset: int = Field(default=0, ge=0, le=2**31)
    """How many to pass over."""


class ShowParameters(BaseModel):
    """The query parameters of one input."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    form: Literal["json", "png", "wav", "text", "npz"] | None = Field(default=None, alias="as")
    """Its form: "json", all that is known of it; "png", "wav" or "text", what the model was given as a
    picture, sound or text; "npz", its arrays. By default what the header Accept names first, else JSON."""


class ExportParameters(BaseModel):
    """The query parameters of an export."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    version: str | None = None
    """Only inputs that this version answered for."""


_LABEL = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "required": ["label"],
                    "additionalProperties": False,
                    "properties": {
                        "label": {
                            "type": ["string", "null"],
                            "description": "One of the model's labels; null takes the label away.",
                        }
                    },
                }
            }
        },
    }
}


@router.get("/v1/models/{name:model}/review")
async def list_items(request: Request, name: str, parameters: Annotated[ListParameters, Query()]) -> Response:
    """List the inputs of a model that are kept for review, without the inputs themselves."""

    def read(store: Store) -> dict[str, Any]:
        items = store.page(name, **parameters.model_dump())
        counts = store.counts(name)
        return {"model": name, **counts._asdict(), "items": [item.render() for item in items]}

    content = await _with_store(request, read)
    registry: Registry = request.app.state.registry
    if not content["total"] and name not in {*registry.models(), *registry.unready()}:
        raise UnknownModelError(f"there is no model {name!r}, and nothing is kept of it")
    _note(request, name)
    return _json(content)


@router.get("/v1/models/{name:model}/review/{item:model}")
async def show_item(
    request: Request, name: str, item: str, parameters: Annotated[ShowParameters, Query()]
) -> Response:
    """Show one input: all that is known of it as JSON, or the input itself as picture, sound, text or arrays.

    `labels` are those that it can be given.
    """

    def read(store: Store) -> tuple[Item, Manifest, Row]:
        found = store.get(item, name)
        return found, manifest_of(store, found), read_row(store, found)

    found, manifest, row = await _with_store(request, read)
    _note(request, name)
    form = parameters.form or _wanted_form(request.headers.get("accept", ""), manifest)
    return await asyncio.to_thread(_render, found, manifest, row, form)


@router.put("/v1/models/{name:model}/review/{item:model}", openapi_extra=_LABEL)
async def label_item(request: Request, name: str, item: str) -> Response:
    """Give one input its right label, or take the label away."""
    settings: Settings = request.app.state.settings
    body = await read_body(request, settings.max_body_bytes, settings.body_timeout_s)
    label = _read_label(body)

    def write(store: Store) -> Item:
        manifest = manifest_of(store, store.get(item, name))
        if label is not None and label not in manifest.labels:
            raise InputError(f"there is no label {label[:80]!r}; there are {', '.join(manifest.labels)}")
        store.label(item, label)
        return store.get(item, name)

    changed = await _with_store(request, write)
    _note(request, name)
    return _json(changed.render())


@router.delete("/v1/models/{name:model}/review/{item:model}")
async def delete_item(request: Request, name: str, item: str) -> Response:
    """Delete one input for good."""

    def write(store: Store) -> None:
        store.get(item, name)
        store.delete(item)

    await _with_store(request, write)
    _note(request, name)
    return _json({"deleted": item})


@router.get("/v1/models/{name:model}/review:export")
async def export_items(
    request: Request, name: str, parameters: Annotated[ExportParameters, Query()]
) -> Response:
    """Return all labelled inputs of a model as one data set, which `octet train --review` reads.

    It changes nothing: what was taken away so is still kept.
    """

    def write(store: Store) -> BinaryIO:
        file: Any = tempfile.SpooledTemporaryFile(_SPOOLED_BYTES)  # noqa: SIM115 - closed when it was sent
        try:
            export(store, name, file, parameters.version)
            file.seek(0)
        except OSError as error:
            file.close()
            raise ReviewStoreError(f"the data set cannot be written: {error.strerror}") from error
        except BaseException:
            file.close()
            raise
        return file  # type: ignore[no-any-return]

    file = await _with_store(request, write)
    _note(request, name)
    headers = {**_PRIVATE, "content-disposition": 'attachment; filename="reviewed.npz"'}
    return StreamingResponse(_pieces(file), media_type=OCTETS, headers=headers)


async def _with_store(request: Request, work: Callable[[Store], T]) -> T:
    """Do something with the store in a thread, so that one that is slow keeps nobody else waiting."""
    settings: Settings = request.app.state.settings
    url = settings.review_url
    assert url is not None

    def do() -> T:
        with open_store(url, create=True) as store:
            return work(store)

    return await asyncio.to_thread(do)


def _note(request: Request, name: str) -> None:
    """Log and count a call under the model's name, if that is one: there are no more of them than models."""
    registry: Registry = request.app.state.registry
    if name in registry.models():
        record_of(request.scope).model = name


def _read_label(body: bytes) -> str | None:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InputError(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict) or set(document) != {"label"}:
        raise InputError('the body must be {"label": "…"}')
    label = document["label"]
    if not isinstance(label, str | None):
        raise InputError("a label must be a text, or null to take it away")
    return label


def _wanted_form(accept: str, manifest: Manifest) -> str:
    """Return the form that a header Accept names first among those that there are."""
    media_type = media_type_of(manifest.decoding)
    own = next((form for form, each in _MEDIA.items() if each == media_type), "json")
    for part in accept.split(","):
        asked = part.partition(";")[0].strip().lower()
        if asked in (JSON, "*/*"):
            return "json"
        if media_type is not None and asked in (media_type, f"{media_type.partition('/')[0]}/*"):
            return own
    return "json"


def _render(item: Item, manifest: Manifest, row: Row, form: str) -> Response:
    if form == "json":
        return _json({**item.render(), "labels": list(manifest.labels), "inputs": _values(manifest, row)})
    # What somebody sent must not run as a page of this server, whatever a browser takes it for.
    headers = {
        **_PRIVATE,
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'",
    }
    if form == "npz":
        return Response(save_arrays(row), headers=headers, media_type=OCTETS)
    if media_type_of(manifest.decoding) != _MEDIA[form]:
        raise InputError(f"the inputs of {item.model} cannot be shown as {form}")
    (array,) = row.values()
    media_type = _MEDIA[form] + ("; charset=utf-8" if form == "text" else "")
    return Response(encode_media(array, manifest.decoding), headers=headers, media_type=media_type)


def _values(manifest: Manifest, row: Row) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for tensor in manifest.data_inputs:
        array = row[tensor.name]
        check_json_form(tensor.name, tensor.datatype, array)
        data = array.tolist() if array.dtype == object else array
        values[tensor.name] = {"datatype": tensor.datatype, "shape": array.shape, "data": data}
    return values


def _json(content: dict[str, Any]) -> Response:
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, headers=_PRIVATE, media_type=JSON)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
