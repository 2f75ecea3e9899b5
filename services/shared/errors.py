"""The one error tree.

LikenessError
├── CallerError                    the caller can mend it (4xx)
│   ├── InvalidRequest             422  a field is missing, malformed or contradicts another
│   ├── ImageRefused               422  the image gate refused the bytes; `code` is from IMAGE_REFUSALS
│   ├── FilmRefused                422  the film cannot be read; `code` is from FILM_REFUSALS
│   ├── NoFaceFound                422  the image decodes but holds no face
│   ├── FaceChoiceNeeded           409  several faces and none chosen
│   ├── Unauthenticated            401  no token, or one that does not verify
│   ├── Forbidden                  403  the policy says no
│   ├── NotFound                   404  not there, or not yours: the answer does not tell which
│   ├── Conflict                   409  contradicts what is already recorded
│   ├── PayloadTooLarge            413
│   ├── RequestTimedOut            408  the body came too slowly
│   └── TooManyRequests            429  slow down and try again
└── PlatformError                  the platform's fault (5xx)
    ├── AuditUnavailable           503  the audit log cannot be written, so nothing is done or disclosed
    ├── DependencyUnavailable      503  another service or a server does not answer
    ├── GalleryIncomplete          503  not everything that should be searched can be searched
    ├── Overloaded                 503  queues are full
    ├── ModelMismatch              409  templates of different models would meet
    ├── IntegrityError             502  stored bytes are not what they were
    └── ConfigurationError         500  a setting or a file is wrong; the service does not start

Every error carries a stable snake_case `code`, a `detail` for a person and an `advice` that says what to do. The
mapping to HTTP is `http_status`, to gRPC `grpc_status`; both live here and nowhere else. Adapters translate foreign
errors with `raise … from exc`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class LikenessError(Exception):
    """Root of every error that Likeness raises on purpose."""

    code: str = "internal_error"
    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"
    retriable: ClassVar[bool] = False
    caller_fault: ClassVar[bool] = False

    def __init__(
        self,
        detail: str,
        *,
        advice: str = "",
        code: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.advice = advice
        self.code = code or type(self).code
        self.context: dict[str, Any] = dict(context or {})


class CallerError(LikenessError):
    """The caller can mend it."""

    code = "bad_request"
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"
    caller_fault = True


class InvalidRequest(CallerError):
    code = "invalid_request"
    http_status = 422


# The closed list of reasons for which the image gate refuses bytes.
IMAGE_REFUSALS = frozenset(
    {
        "image_empty",
        "image_format_not_allowed",  # not on the allow-list by content
        "image_undecodable",  # broken, truncated or contradicting itself
        "image_too_many_pixels",  # over 50 Mpx by its header
        "image_too_large",  # over the byte limit
        "image_decode_too_slow",  # over 5 s of CPU
        "image_decode_too_much_memory",  # over 1 GB
        "image_decoder_crashed",
        "image_malware",  # known to the virus scanner, where there is one
    }
)


class ImageRefused(CallerError):
    """The image gate refused the bytes. `code` is one of IMAGE_REFUSALS."""

    code = "image_undecodable"
    http_status = 422


# The closed list of reasons for which a film is not read.
FILM_REFUSALS = frozenset(
    {
        "film_empty",
        "film_format_not_allowed",  # not on the allow-list by content
        "film_too_large",  # over the byte limit
        "film_undecodable",  # broken, truncated before its first frame or contradicting itself
        "film_no_video",  # sound only
        "film_codec_not_allowed",
        "film_frame_too_large",
        "film_decode_too_slow",
        "film_decode_too_much_memory",
        "film_decoder_crashed",
        "film_malware",  # known to the virus scanner, where there is one
    }
)


class FilmRefused(CallerError):
    """The film cannot be read. `code` is one of FILM_REFUSALS."""

    code = "film_undecodable"
    http_status = 422


class NoFaceFound(CallerError):
    code = "no_face_found"
    http_status = 422
    grpc_status = "FAILED_PRECONDITION"


class FaceChoiceNeeded(CallerError):
    """Several faces and none chosen. `context["faces"]` lists them."""

    code = "face_choice_needed"
    http_status = 409
    grpc_status = "FAILED_PRECONDITION"


class Unauthenticated(CallerError):
    code = "unauthenticated"
    http_status = 401
    grpc_status = "UNAUTHENTICATED"


class Forbidden(CallerError):
    code = "forbidden"
    http_status = 403
    grpc_status = "PERMISSION_DENIED"


class NotFound(CallerError):
    code = "not_found"
    http_status = 404
    grpc_status = "NOT_FOUND"


class Conflict(CallerError):
    code = "conflict"
    http_status = 409
    grpc_status = "ALREADY_EXISTS"


class PayloadTooLarge(CallerError):
    code = "payload_too_large"
    http_status = 413


class RequestTimedOut(CallerError):
    code = "request_timed_out"
    http_status = 408
    grpc_status = "DEADLINE_EXCEEDED"
    retriable = True


class TooManyRequests(CallerError):
    code = "too_many_requests"
    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"
    retriable = True


class PlatformError(LikenessError):
    """The platform's fault."""


class AuditUnavailable(PlatformError):
    code = "audit_unavailable"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    retriable = True


class DependencyUnavailable(PlatformError):
    code = "dependency_unavailable"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    retriable = True


class GalleryIncomplete(PlatformError):
    code = "incomplete_index"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    retriable = True


class Overloaded(PlatformError):
    code = "overloaded"
    http_status = 503
    grpc_status = "RESOURCE_EXHAUSTED"
    retriable = True


class ModelMismatch(PlatformError):
    code = "model_mismatch"
    http_status = 409
    grpc_status = "FAILED_PRECONDITION"


class IntegrityError(PlatformError):
    code = "integrity"
    http_status = 502
    grpc_status = "DATA_LOSS"


class ConfigurationError(PlatformError):
    code = "configuration_error"


def error_classes() -> list[type[LikenessError]]:
    """Every class of the tree, parents before children."""
    found: list[type[LikenessError]] = []
    pending: list[type[LikenessError]] = [LikenessError]
    while pending:
        current = pending.pop(0)
        found.append(current)
        pending.extend(current.__subclasses__())
    return found


def error_from_code(
    code: str, detail: str, advice: str = "", context: Mapping[str, Any] | None = None
) -> LikenessError | None:
    """Rebuild an error that crossed a process border; None for a code that the tree does not have."""
    if code in IMAGE_REFUSALS:
        return ImageRefused(detail, advice=advice, code=code, context=context)
    if code in FILM_REFUSALS:
        return FilmRefused(detail, advice=advice, code=code, context=context)
    for kind in error_classes():
        if kind.code == code:
            return kind(detail, advice=advice, context=context)
    return None
