"""The JSON of the review queue, as schemas of the OpenAPI document."""

from __future__ import annotations

from bundle.datatypes import DATATYPES
from service.api.schema_parts import (
    ANY,
    COUNT,
    PROBABILITY,
    TEXT,
    Schema,
    an_object,
    enum,
    list_of,
    map_of,
    nullable,
    ref,
)


def review_schemas() -> dict[str, Schema]:
    """Return name -> schema of what the calls of the review queue answer."""
    item = {
        "id": TEXT,
        "model": TEXT,
        "version": TEXT,
        "bundle": an_object({"precision": TEXT, "sha256": TEXT}),
        "created_at": TEXT,
        "answer": TEXT,
        "confidence": nullable(PROBABILITY),
        "confidence_raw": PROBABILITY,
        "novelty_p_value": nullable(PROBABILITY),
        "reasons": list_of(enum("ood", "low_confidence", "no_threshold", "below_bound"), minItems=1),
        "sureness": PROBABILITY,
        "size_bytes": COUNT,
        "label": nullable(TEXT),
        "labelled_at": nullable(TEXT),
        "exported_at": nullable(TEXT),
    }
    values = an_object({"datatype": enum(*DATATYPES), "shape": list_of(COUNT), "data": ANY})
    items = {"model": TEXT, "total": COUNT, "labelled": COUNT, "items": list_of(ref("ReviewItem"))}
    return {
        "ReviewItem": an_object(item),
        "ReviewItems": an_object(items),
        "ReviewInput": an_object({**item, "labels": list_of(TEXT), "inputs": map_of(values)}),
    }
