"""A browser of our own for the console, without a browser: it keeps the cookie that it is told to keep."""

from __future__ import annotations

import re

import httpx

from tests.support.platform import Platform

COOKIE = "__Host-likeness"


class Visitor:
    """Signs in, looks at pages, sends their forms."""

    def __init__(self, platform: Platform) -> None:
        base = platform.url("review")
        self.client = httpx.Client(
            base_url=base, headers={"Origin": base, "Accept": "text/html"}, trust_env=False, timeout=60
        )
        self.cookie = ""

    def sign_in(self, token: str) -> httpx.Response:
        answer = self.client.post("/console/sign-in", data={"token": token}, headers=self._cookies())
        found = re.search(rf"{COOKIE}=([^;]+)", answer.headers.get("set-cookie", ""))
        self.cookie = found.group(1) if found else self.cookie
        return answer

    def get(self, path: str = "/console/queue") -> httpx.Response:
        return self.client.get(path, headers=self._cookies())

    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.get("/console/guide").text)
        assert found is not None
        return found.group(1)

    def post(self, path: str, **form: str) -> httpx.Response:
        return self.client.post(path, data=form, headers=self._cookies())

    def _cookies(self) -> dict[str, str]:
        return {"Cookie": f"{COOKIE}={self.cookie}"} if self.cookie else {}
