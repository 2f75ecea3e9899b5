"""How references stand in Milvus: names, fields, filters, rows.

One collection for each model, reached through an alias; in it one explicit partition a watchlist (a partition *key*
misplaces rows on upsert in Milvus 2.3). Withdrawals stand in a collection of their own, which no search reads.

**A primary key is never used twice.** It names a reference and its version, and a newer version is a new row. Milvus
2.3.5 was seen to serve a row again that had been deleted long before, while a row with the same key was inserted: with
the reference as the key that would be a withdrawn face in an answer.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from services.search.ports import ReferenceRecord

VECTOR = "vector"
ROW_ID = "row_id"
FIELDS = ("reference_id", "subject_id", "owner", "watchlist_id", "version", "expires_at")
# Bytes of a text. The ledger's own limits are tighter.
_TEXT_BYTES = {"reference_id": 256, "subject_id": 2048, "owner": 512, "watchlist_id": 512}
_ROW_ID_BYTES = 300
_UNSAFE = re.compile(r"[^A-Za-z0-9]")
_TOMBSTONE_DIMENSION = 2  # a collection cannot be without a vector
# Vectors of a tombstone mean nothing; all are this one.
_NO_VECTOR = (1.0, 0.0)


def collection_name(alias: str, model_id: str) -> str:
    """The collection of one model behind the alias; the model's whole name stands in its description."""
    return f"{alias}_{hashlib.sha256(model_id.encode()).hexdigest()[:12]}"


def tombstones_name(alias: str) -> str:
    return f"{alias}_withdrawn"


def partition_name(watchlist_id: str) -> str:
    """A name Milvus allows (letters, digits, underscores), different for different watchlists and readable."""
    return "w_" + _UNSAFE.sub(lambda found: f"_{ord(found[0]):x}_" if found[0] != "_" else "__", watchlist_id)


def reference_schema(library: Any, model_id: str, dimension: int) -> Any:
    text, number = library.DataType.VARCHAR, library.DataType.INT64
    schema = library.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=model_id)
    schema.add_field(ROW_ID, text, is_primary=True, max_length=_ROW_ID_BYTES)
    for name in FIELDS:
        if name in _TEXT_BYTES:
            schema.add_field(name, text, max_length=_TEXT_BYTES[name])
        else:
            schema.add_field(name, number)
    schema.add_field(VECTOR, library.DataType.FLOAT_VECTOR, dim=dimension)
    return schema


def tombstone_schema(library: Any) -> Any:
    text = library.DataType.VARCHAR
    schema = library.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(ROW_ID, text, is_primary=True, max_length=_ROW_ID_BYTES)
    schema.add_field("reference_id", text, max_length=_TEXT_BYTES["reference_id"])
    schema.add_field("version", library.DataType.INT64)
    schema.add_field(VECTOR, library.DataType.FLOAT_VECTOR, dim=_TOMBSTONE_DIMENSION)
    return schema


def flat_index(library: Any) -> Any:
    """Brute force over the inner product, which for unit vectors is the cosine."""
    parameters = library.MilvusClient.prepare_index_params()
    parameters.add_index(VECTOR, index_type="FLAT", metric_type="IP")
    return parameters


def row_id(reference_id: str, version: int) -> str:
    return f"{reference_id}/{version}"


def row_of(record: ReferenceRecord, vector: npt.NDArray[np.float32]) -> dict[str, Any]:
    fields = {name: getattr(record, name) for name in FIELDS}
    return {ROW_ID: row_id(record.reference_id, record.version), **fields, VECTOR: vector}


def tombstone_of(reference_id: str, version: int) -> dict[str, Any]:
    key = row_id(reference_id, version)
    return {ROW_ID: key, "reference_id": reference_id, "version": version, VECTOR: list(_NO_VECTOR)}


def record_of(entity: Mapping[str, Any]) -> ReferenceRecord:
    """Raises KeyError or TypeError when a field is missing or of another type."""
    texts = {name: _typed(entity[name], str) for name in _TEXT_BYTES}
    numbers = {name: _typed(entity[name], int) for name in ("version", "expires_at")}
    return ReferenceRecord(**texts, **numbers)


def is_one_of(field: str, values: Iterable[str]) -> str:
    """A filter expression. Values are JSON strings, so that whatever they hold stays a value."""
    return f"{field} in {json.dumps(sorted(values), ensure_ascii=False)}"


def is_none_of(field: str, values: Sequence[str]) -> str:
    return f"{field} not in {json.dumps(sorted(values), ensure_ascii=False)}" if values else ""


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
