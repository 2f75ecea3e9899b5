"""A small OpenID Connect provider: real HTTP, real signatures, strict about what it is asked. For tests alone.

`python -m tests.support.oidc_provider TOKENS_FOLDER PORT REDIRECT_URI` runs it as a process of its own, with the key of
a local platform, so that every service takes its tokens. It prints its address.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key

CLIENT_ID, CLIENT_SECRET = "likeness console", "a secret: with +%& in it"
Claims = dict[str, Any]


@dataclass
class Provider:
    """What the provider knows. `twist` changes the claims of tokens before they are signed: "access" or "id"."""

    tokens: Path
    redirect_uri: str
    issuer: str = "likeness-local"
    access_s: int = 600
    twist: Callable[[str, Claims], None] = lambda kind, claims: None
    codes: dict[str, Mapping[str, str]] = field(default_factory=dict)
    refreshes: dict[str, str] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    renewals: int = 0
    address: str = ""
    # Answers every token request with an error of its own.
    away: bool = False

    def code_for(self, asked: Mapping[str, str], person_id: str) -> str:
        """Somebody has signed in: a code that is good once."""
        code = secrets.token_urlsafe(16)
        self.codes[code] = {**asked, "sub": person_id}
        return code

    def problem(self, asked: Mapping[str, str]) -> str:
        """What is wrong with an authorisation request; nothing when it is in order."""
        wanted = {
            "response_type": "code",
            "client_id": CLIENT_ID,
            "redirect_uri": self.redirect_uri,
            "code_challenge_method": "S256",
        }
        wrong = [name for name, value in wanted.items() if asked.get(name) != value]
        return ", ".join(
            wrong + [name for name in ("state", "nonce", "code_challenge") if len(asked.get(name, "")) < 43]
        )

    def exchanged(self, form: Mapping[str, str], authorisation: str) -> tuple[int, Claims]:
        """The token endpoint."""
        if self.away:
            return 502, {}
        basic = base64.b64encode(f"{quote_plus(CLIENT_ID)}:{quote_plus(CLIENT_SECRET)}".encode()).decode()
        if authorisation != f"Basic {basic}":
            return 401, {"error": "invalid_client"}
        if form.get("grant_type") == "refresh_token":
            person_id = self.refreshes.pop(form.get("refresh_token", ""), None)
            self.renewals += person_id is not None
            return (400, {"error": "invalid_grant"}) if person_id is None else (200, self._tokens(person_id, None))
        asked = self.codes.pop(form.get("code", ""), None)
        challenge = _base64url(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if asked is None or asked["code_challenge"] != challenge or form.get("redirect_uri") != self.redirect_uri:
            return 400, {"error": "invalid_grant"}
        return 200, self._tokens(asked["sub"], asked["nonce"])

    def _tokens(self, person_id: str, nonce: str | None) -> Claims:
        now = datetime.now(UTC)
        common: Claims = {"iss": self.issuer, "sub": person_id, "iat": now}
        access: Claims = {
            **common,
            "aud": "likeness",
            "exp": now + timedelta(seconds=self.access_s),
            "force": "northshire",
            "roles": ["operator"],
            "watchlists": ["custody"],
        }
        self.twist("access", access)
        signed = self._signed(access, "at+jwt")
        refresh = secrets.token_urlsafe(16)
        self.refreshes[refresh] = person_id
        answer: Claims = {"token_type": "Bearer", "access_token": signed, "refresh_token": refresh}
        if nonce is None:
            return answer
        identity: Claims = {
            **common,
            "aud": CLIENT_ID,
            "exp": now + timedelta(seconds=300),
            "nonce": nonce,
            "at_hash": _base64url(hashlib.sha512(signed.encode()).digest()[:32]),
        }
        self.twist("id", identity)
        return {**answer, "id_token": self._signed(identity, "JWT")}

    def _signed(self, claims: Claims, kind: str) -> str:
        key = load_pem_private_key((self.tokens / "issuer-key.pem").read_bytes(), None)
        [public] = json.loads((self.tokens / "jwks.json").read_text("utf-8"))["keys"]
        return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": public["kid"], "typ": kind})  # type: ignore[arg-type]


def serving(provider: Provider, port: int = 0) -> ThreadingHTTPServer:
    """A server that is listening; run it with `serve_forever`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            place = urlsplit(self.path).path
            if place == "/authorize":
                problem = provider.problem(asked)
                self._page(400 if problem else 200, f"<p>{escape(problem)}</p>" if problem else _login(asked))
            elif place == "/end-session":
                provider.ended.append(asked.get("id_token_hint", ""))
                back = escape(asked.get("post_logout_redirect_uri", ""))
                self._page(200, f'<h1>Signed out of the force account</h1><a href="{back}">Back</a>')
            else:
                self._page(404, "")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            if self.path == "/token":
                status, answer = provider.exchanged(form, self.headers.get("Authorization", ""))
                self._send(status, "application/json", json.dumps(answer).encode())
                return
            code = provider.code_for(form, form["person_id"])
            back = urlencode({"code": code, "state": form["state"], "iss": provider.issuer})
            self.send_response(303)
            self.send_header("Location", f"{form['redirect_uri']}?{back}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the test's own output."""

        def _page(self, status: int, body: str) -> None:
            html = f"<!doctype html><html lang=en><title>Force account</title><body>{body}</body></html>"
            self._send(status, "text/html; charset=utf-8", html.encode())

        def _send(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def _login(asked: Mapping[str, str]) -> str:
    kept = "".join(
        f'<input type=hidden name="{escape(name)}" value="{escape(value)}">' for name, value in asked.items()
    )
    return (
        f'<h1>Force account</h1><form method=post action="/login">{kept}'
        "<label>Person <input name=person_id></label><button>Sign in</button></form>"
    )


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def main() -> None:
    folder, port, redirect_uri = sys.argv[1:4]
    server = serving(Provider(Path(folder), redirect_uri), int(port))
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
