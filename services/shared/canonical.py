"""Canonical bytes: one value, one encoding, for ever.

JSON after RFC 8785 (JCS) for the subset that Likeness hashes and signs: objects with string keys, arrays, strings,
booleans, null and integers within ±(2^53 - 1). Floats are refused: their textual form is where encoders differ, so a
number with a fraction is written as a string by whoever makes the value.
"""

import json
from typing import Any

MAX_SAFE_INTEGER = 2**53 - 1


def _check(value: Any, where: str) -> None:
    if value is None or isinstance(value, bool | str):
        return
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise ValueError(f"{where}: integer {value} is outside ±(2^53 - 1); write it as a string")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where}: key {key!r} is not a string")
            _check(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{where}[{index}]")
    else:
        raise TypeError(f"{where}: {type(value).__name__} has no canonical form; write it as a string")


def canonical_bytes(value: Any) -> bytes:
    """RFC 8785 bytes of a value; TypeError or ValueError names the place that has no canonical form."""
    _check(value, "$")
    return _encode(value).encode("utf-8")


def _encode(value: Any) -> str:
    if isinstance(value, dict):
        # RFC 8785 orders keys by UTF-16 code units, which differs from code points outside the BMP.
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{_encode(key)}:{_encode(value[key])}" for key in keys) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_encode(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
