"""The way in and out: sign-in, sign-out, colours, the start page, the guide, the static files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from services.review.console.context import Console, see_other
from services.review.console.guard import COOKIE, Visit, read_form, require_own_origin, visit_of, with_headers
from services.review.console.rendering import THEME_COOKIE, THEMES, home_of
from services.review.console.sessions import SessionSettings
from services.review.console.static_files import StaticFiles
from services.shared.errors import LikenessError

_Visit = Annotated[Visit, Depends(visit_of)]
_THEME_S = 365 * 24 * 3600


def open_routes(console: Console, settings: SessionSettings, static: StaticFiles) -> APIRouter:
    """What is there without a session."""
    router = APIRouter(include_in_schema=False)

    def sign_in_page(request: Request, problem: LikenessError | None = None) -> Response:
        context = {
            "problem": problem,
            "ended": problem is None and "ended" in request.query_params,
            "has_oidc": False,
            "idle_minutes": round(settings.idle_s / 60),
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
            form = await read_form(request)
            address = request.client.host if request.client else ""
            cookie, session = console.sessions.sign_in(form.text("token"), address)
        except LikenessError as error:
            return sign_in_page(request, error)
        console.sessions.end(request.cookies.get(COOKIE, ""))
        response = RedirectResponse(home_of(session.principal.roles), status_code=303)
        response.set_cookie(COOKIE, cookie, path="/", secure=True, httponly=True, samesite="strict")
        return with_headers(response)

    @router.get("/console/static/{version}/{name}")
    def static_file(request: Request, version: str, name: str) -> Response:
        return static.answer(request, name)

    @router.get("/")
    def root() -> Response:
        return with_headers(RedirectResponse("/console/", status_code=303))

    return router


def signed_in_routes(console: Console) -> APIRouter:
    router = console.router()

    @router.get("/console/")
    def start(visit: _Visit) -> Response:
        return see_other(home_of(visit.principal.roles))

    @router.post("/console/sign-out")
    def sign_out(visit: _Visit) -> Response:
        console.sessions.end(visit.request.cookies.get(COOKIE, ""))
        response = see_other("/console/sign-in?ended=1")
        response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
        response.headers["Clear-Site-Data"] = '"cache", "storage"'
        return response

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
