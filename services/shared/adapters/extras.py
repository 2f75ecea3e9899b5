"""Client libraries that are installed only where their server is used."""

from __future__ import annotations

import importlib
from typing import Any

from services.shared.errors import ConfigurationError


def require(module: str, extra: str) -> Any:
    """Import a library of an install extra; ConfigurationError names the extra when it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"The Python package `{module}` cannot be imported: {error}.",
            advice=f'Install it with the extra: pip install "likeness[{extra}]".',
        ) from error
