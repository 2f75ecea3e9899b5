"""Canonical bytes: one value, one encoding, for ever.

JSON after RFC 8785 (JCS) for the subset that Likeness hashes and signs: objects with string keys, arrays, strings,
booleans, null and integers within ±(2^53 - 1). Floats are refused: their textual form is where encoders differ, so a
number with a fraction is written as a string by whoever makes the value.
"""

import json
from typing import Any

MAX_SAFE_INTEGER = 2**53 - 1


# The encoder of the standard library in C: no spaces, the shortest escapes, keys in order of code points.
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False)


def _check(value: Any, where: str) -> bool:
    """TypeError or ValueError unless the value has a canonical form; whether all its keys are ASCII."""
    if value is None or isinstance(value, str | bool):
        return True
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise ValueError(f"{where}: integer {value} is outside ±(2^53 - 1); write it as a string")
        return True
    if isinstance(value, dict):
        is_ascii = True
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where}: key {key!r} is not a string")
            is_ascii &= isinstance(item, str) or _check(item, f"{where}.{key}")
            is_ascii &= key.isascii()
        return is_ascii
    if isinstance(value, list | tuple):
        is_ascii = True
        for number, item in enumerate(value):
            is_ascii &= isinstance(item, str) or _check(item, f"{where}[{number}]")
        return is_ascii
    raise TypeError(f"{where}: {type(value).__name__} has no canonical form; write it as a string")


def canonical_bytes(value: Any) -> bytes:
    """RFC 8785 bytes of a value; TypeError or ValueError names the place that has no canonical form."""
    # RFC 8785 orders keys by UTF-16 code units, which differs from code points outside the BMP.
    text = _ENCODER.encode(value) if _check(value, "$") else _encode(value)
    return text.encode("utf-8")


def _encode(value: Any) -> str:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{_encode(key)}:{_encode(value[key])}" for key in keys) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_encode(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
