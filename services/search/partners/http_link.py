"""A partner's platform over HTTPS with mutual TLS. What it answers is a stranger's: bounded in bytes, time and form."""

from __future__ import annotations

import hashlib
import ssl
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore, Lock

import httpx
import orjson
import structlog

from services.search.partners.answers import MAX_ANSWER_BYTES, PartnerStatus, read_answer
from services.search.partners.config import MAX_PARTNERS, Partner, Partners
from services.search.partners.ports import Reply
from services.search.partners.tokens import Question, sign
from services.shared.clock import Clock

ASK_PATH = "/v1/partner-searches"
# Questions to one partner at one time: one that is slow holds so many threads and no more.
MAX_AT_ONCE = 4
_MAX_PROBLEM_CHARS = 300


class HttpPartnerLink:
    """PartnerLink over HTTPS. Whom it calls is the partner file's to say; a redirection is followed nowhere."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._slots: dict[str, BoundedSemaphore] = {}
        self._executor = ThreadPoolExecutor(MAX_AT_ONCE * MAX_PARTNERS, thread_name_prefix="partner")

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def ask(self, partners: Partners, partner: Partner, question: Question, picture: bytes) -> Reply:
        slot = self._slot(partner.name)
        if partner.address is None:
            return Reply(PartnerStatus.NOT_ASKED, code="no_address", detail="It has no address: it may only ask.")
        if not slot.acquire(blocking=False):
            return Reply(
                PartnerStatus.NOT_SENT,
                code="partner_busy",
                detail=f"{MAX_AT_ONCE} questions to this partner are under way.",
                advice="Ask again in a few seconds.",
            )
        # The slot is given back when the call really ends, which may be after nobody waits for it any more.
        call = _Call(partners, partner, question, picture, self._clock)
        future = self._executor.submit(call)
        future.add_done_callback(lambda _: slot.release())
        try:
            return future.result(partner.timeout_s)
        except TimeoutError:
            call.cancel()
            return _timed_out(partner)

    def _slot(self, name: str) -> BoundedSemaphore:
        with self._lock:
            return self._slots.setdefault(name, BoundedSemaphore(MAX_AT_ONCE))


class _Call:
    """One call. Every failure is a Reply."""

    def __init__(self, partners: Partners, partner: Partner, question: Question, picture: bytes, clock: Clock) -> None:
        self._partners = partners
        self._partner = partner
        self._question = question
        self._picture = picture
        self._clock = clock
        self._deadline_s = clock.monotonic_s() + partner.timeout_s
        self._client: httpx.Client | None = None

    def cancel(self) -> None:
        """Close the connection, so that the thread that reads from it ends soon."""
        if self._client is not None:
            self._client.close()

    def __call__(self) -> Reply:
        try:
            return self._ask()
        except httpx.TimeoutException:
            return _timed_out(self._partner)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ssl.SSLError, OSError, RuntimeError) as error:
            structlog.get_logger().warning("partner_unreachable", partner=self._partner.name, error=str(error)[:200])
            return Reply(
                PartnerStatus.UNREACHABLE,
                code="partner_unreachable",
                detail=f"{self._partner.name} cannot be reached, or is not who it should be.",
                advice="Ask again later, or ask that force itself; operators: docs/operations/partners.md.",
            )

    def _ask(self) -> Reply:
        partner = self._partner
        context = ssl.create_default_context(cafile=str(self._partners.authority_path(partner)))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        certificate, key = self._partners.certificate_paths()
        context.load_cert_chain(certificate, key)
        token = sign(self._partners, partner, self._question, self._clock)
        with httpx.Client(verify=context, trust_env=False, timeout=partner.timeout_s) as client:
            self._client = client
            with client.stream(
                "POST",
                f"{partner.address}{ASK_PATH}",
                content=self._picture,
                headers={
                    "Authorization": f"Bearer {token}",
                    "Content-Type": "application/octet-stream",
                    "Accept-Encoding": "identity",
                },
                # The name is checked that is configured, whatever the address is.
                extensions={"sni_hostname": partner.host_name},
            ) as response:
                content = self._read(response)
        if content is None:
            return _nonsense(partner, "its answer has no end")
        return self._reply(response.status_code, content)

    def _read(self, response: httpx.Response) -> bytes | None:
        """The body as it came, never unpacked; None for one that is too large. Raises ReadTimeout."""
        content = bytearray()
        for chunk in response.iter_raw():
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                return None
            if self._clock.monotonic_s() > self._deadline_s:
                raise httpx.ReadTimeout("the answer trickles")
        return bytes(content)

    def _reply(self, status: int, content: bytes) -> Reply:
        if status != httpx.codes.OK:
            return _problem(self._partner, status, content)
        try:
            answer = read_answer(content, self._question)
        except ValueError as error:
            return _nonsense(self._partner, str(error)[:200])
        return Reply(PartnerStatus.ANSWERED, answer, hashlib.sha256(content).hexdigest())


def _timed_out(partner: Partner) -> Reply:
    return Reply(
        PartnerStatus.TIMED_OUT,
        code="partner_timed_out",
        detail=f"{partner.name} did not answer within {partner.timeout_s:g} s; it may have received the picture.",
        advice="Ask again later, or ask that force itself.",
    )


def _nonsense(partner: Partner, why: str) -> Reply:
    structlog.get_logger().warning("partner_answer_refused", partner=partner.name, why=why)
    return Reply(
        PartnerStatus.NONSENSE,
        code="partner_answer_invalid",
        detail=f"{partner.name} answered something that is no answer to this question; it was thrown away.",
        advice="Tell the operators of both platforms.",
    )


def _problem(partner: Partner, status: int, content: bytes) -> Reply:
    """In the partner's own words, as far as they are words."""
    try:
        body = orjson.loads(content)
    except ValueError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("code"), str):
        return _nonsense(partner, f"status {status} without a problem")
    is_refusal = 400 <= status < 500
    return Reply(
        PartnerStatus.REFUSED if is_refusal else PartnerStatus.FAILED,
        code=_words(body["code"])[:64],
        detail=_words(body.get("detail")),
        advice=_words(body.get("advice")),
    )


def _words(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(character for character in text if character.isprintable())[:_MAX_PROBLEM_CHARS]
