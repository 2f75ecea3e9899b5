"""The way in and out: sign-in, sign-out, colours, the start page, the guide, the static files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from services.review.console import words
from services.review.console.addresses import Addresses
from services.review.console.context import Console, see_other
from services.review.console.guard import COOKIE, Visit, read_form, require_own_origin, visit_of, with_headers
from services.review.console.oidc import CALLBACK, Oidc, SignInFlow
from services.review.console.own_sessions import add_own_sessions, agent_of
from services.review.console.rendering import THEME_COOKIE, THEMES, home_of
from services.review.console.sessions import Place, SessionSettings
from services.review.console.static_files import StaticFiles
from services.review.console.turns import session_turn
from services.shared.errors import Forbidden, LikenessError

_Visit = Annotated[Visit, Depends(visit_of)]
# Beside the session: one sign-in at the identity provider, from its beginning to its end.
FLOW_COOKIE = "__Host-likeness-sign-in"
_FLOW_S = 600
_THEME_S = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Entrance:
    """How people can sign in."""

    sessions: SessionSettings
    by_token: bool
    oidc: Oidc | None
    addresses: Addresses


def open_routes(console: Console, entrance: Entrance, static: StaticFiles) -> APIRouter:
    """What is there without a session."""
    router = APIRouter(include_in_schema=False)
    settings = entrance.sessions

    def sign_in_page(request: Request, problem: LikenessError | None = None) -> Response:
        context = {
            "problem": problem,
            "ended": "" if problem else words.ENDED.get(request.query_params.get("ended", ""), ""),
            "has_oidc": entrance.oidc is not None,
            "by_token": entrance.by_token,
            "idle_minutes": round(settings.idle_s / 60),
            "lifetime_hours": round(settings.lifetime_s / 3600),
        }
        status = problem.http_status if problem else 200
        return with_headers(console.pages.page(request, "sign_in.html", context, status_code=status))

    @router.get("/console/sign-in")
    def show_sign_in(request: Request) -> Response:
        return sign_in_page(request)

    @router.post("/console/sign-in")
    async def sign_in(request: Request) -> Response:
        try:
            require_own_origin(request)
            if not entrance.by_token:
                raise Forbidden("Tokens are not taken here.", advice="Sign in with your force account.")
            form = await read_form(request)
            address = entrance.addresses.of(request)
            cookie, session = await run_sync(console.sessions.sign_in, form.text("token"), address, agent_of(request))
            await run_sync(console.sessions.end, request.cookies.get(COOKIE, ""))
        except LikenessError as error:
            return sign_in_page(request, error)
        return with_headers(signed_in(RedirectResponse(home_of(session.principal.roles), status_code=303), cookie))

    @router.get("/console/session")
    async def standing(request: Request) -> Response:
        """For the page that stands open: how long it may. Unlike every other page, asking does not lengthen it."""
        found = await session_turn(console.sessions.standing, request.cookies.get(COOKIE, ""))
        ended = found.ended.value if found.ended else ""
        told = {"left_s": found.left_s, "can_stay": found.can_stay, "ended": ended}
        return with_headers(JSONResponse(told, status_code=200 if found.left_s else 401))

    if entrance.oidc is not None:
        _add_provider(router, console, entrance, entrance.oidc, sign_in_page)

    @router.get("/console/static/{version}/{name}")
    def static_file(request: Request, version: str, name: str) -> Response:
        return static.answer(request, name)

    @router.get("/")
    def root() -> Response:
        return with_headers(RedirectResponse("/console/", status_code=303))

    return router


def signed_in(response: Response, cookie: str) -> Response:
    response.set_cookie(COOKIE, cookie, path="/", secure=True, httponly=True, samesite="strict")
    return response


def _add_provider(
    router: APIRouter, console: Console, entrance: Entrance, oidc: Oidc, sign_in_page: Callable[..., Response]
) -> None:
    @router.get("/console/oidc/start")
    def start() -> Response:
        flow = SignInFlow.begin()
        response = RedirectResponse(oidc.start(flow), status_code=303)
        # Lax: the browser comes back from another site, with this cookie and no other of ours.
        response.set_cookie(
            FLOW_COOKIE, flow.secret, max_age=_FLOW_S, path="/", secure=True, httponly=True, samesite="lax"
        )
        return with_headers(response)

    @router.get(CALLBACK)
    def callback(request: Request) -> Response:
        secret = request.cookies.get(FLOW_COOKIE, "")
        try:
            tokens = oidc.complete(SignInFlow(secret) if secret else None, dict(request.query_params))
            cookie, session = console.sessions.begin(tokens, Place(entrance.addresses.of(request), agent_of(request)))
            console.sessions.end(request.cookies.get(COOKIE, ""))
        except LikenessError as error:
            response = sign_in_page(request, error)
        else:
            # A page and no redirect: what another site began may not bring a strict cookie along.
            context = {"place": home_of(session.principal.roles), "told": "You are signed in."}
            response = signed_in(with_headers(console.pages.page(request, "onward.html", context)), cookie)
        response.delete_cookie(FLOW_COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        return response


def signed_in_routes(console: Console, oidc: Oidc | None) -> APIRouter:
    router = console.router()

    @router.get("/console/")
    def start(visit: _Visit) -> Response:
        return see_other(home_of(visit.principal.roles))

    @router.post("/console/sign-out")
    def sign_out(visit: _Visit) -> Response:
        console.sessions.end(visit.request.cookies.get(COOKIE, ""))
        return signed_out(visit)

    def signed_out(visit: Visit) -> Response:
        elsewhere = oidc.sign_out(visit.session.id_token) if oidc is not None else None
        if elsewhere is None:
            response = see_other("/console/sign-in?ended=out")
        else:
            # A page and no redirect: a form of ours may not lead to another site (form-action).
            told = "You are signed out here; your force account is signed out next."
            response = console.pages.page(visit.request, "onward.html", {"place": elsewhere, "told": told})
        response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
        response.headers["Clear-Site-Data"] = '"cache", "storage"'
        return response

    add_own_sessions(router, console, signed_out)

    @router.post("/console/theme")
    def theme(visit: _Visit) -> Response:
        chosen = visit.form.text("theme")
        back = visit.form.text("back")
        response = see_other(back if back.startswith("/console/") and "\\" not in back else "/console/")
        if chosen in THEMES:
            response.set_cookie(
                THEME_COOKIE, chosen, max_age=_THEME_S, path="/console", secure=True, httponly=True, samesite="strict"
            )
        return response

    @router.get("/console/guide")
    def guide(visit: _Visit) -> Response:
        return console.page(visit, "guide.html")

    return router
