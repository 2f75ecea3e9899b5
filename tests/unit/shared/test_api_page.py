from __future__ import annotations

import asyncio
import re

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from services.shared.api_page import add_api_page


class Thing(BaseModel):
    """A `thing` with <b>no markup</b>."""

    name: str
    size: int | None = None


@pytest.fixture
def page() -> httpx.Response:
    app = FastAPI(title="Test", description="Says <script>alert(1)</script>.\n\nSecond.", docs_url=None)

    @app.post("/things/{thing_id}", summary="Make a thing")
    def make(thing_id: int, thing: Thing, limit: int = 5) -> Thing:
        """Makes `it`."""
        return thing

    add_api_page(app)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get("/docs")

    return asyncio.run(ask())


def test_every_operation_and_object_is_described(page: httpx.Response) -> None:
    assert page.status_code == 200
    for said in ("/things/{thing_id}", "Make a thing", "Makes <code>it</code>.", "limit", "Thing", "integer or null"):
        assert said in page.text


def test_it_runs_no_script_and_loads_nothing_from_elsewhere(page: httpx.Response) -> None:
    assert "<script" not in page.text
    assert "<b>" not in page.text
    assert not re.search(r"(?:https?:)?//[a-z]", re.sub(r"https?://www\.w3\.org\S*", "", page.text))
    assert "default-src 'none'" in page.headers["content-security-policy"]
