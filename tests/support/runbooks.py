"""The commands of the runbooks in docs/operations, which tests run as they are written."""

from __future__ import annotations

import re

from tests.support.repository import ROOT

_SECTION = re.compile(r"^#+ (.+?)\n(.*?)(?=^#+ |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(runbook: str) -> dict[str, str]:
    """The commands of a runbook by the heading that they stand under."""
    sections = _SECTION.findall((ROOT / "docs" / "operations" / runbook).read_text("utf-8"))
    found = {title: "".join(_BLOCK.findall(text)) for title, text in sections}
    return {title: block for title, block in found.items() if block}
