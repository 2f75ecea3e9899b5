"""What a bucket drops by itself, and that it drops nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from services.shared.adapters.extras import require
from services.shared.errors import ConfigurationError

RULE = "likeness"
# Stores that have no such rules, or a key that may not set them: said, and no reason not to start.
_NOT_HERE = frozenset(
    {"AccessDenied", "NotImplemented", "InvalidArgument", "InvalidRequest", "MalformedXML", "MethodNotAllowed"}
)


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """Days after which a bucket drops what nobody needs; 0 keeps it.

    `noncurrent_days`: versions that another one covers, counted from when it was covered. Only what covers an original
    should ever be there, but if somebody covers an original, this is how long there is to notice (`image_covered` is
    logged whenever it is read). `incomplete_upload_days`: uploads in parts that were never finished.
    """

    noncurrent_days: int = 0
    incomplete_upload_days: int = 1


def keep_lifecycle(client: Any, bucket: str, wanted: Lifecycle, retention_days: int) -> None:
    """Set the one rule that is ours and leave others alone. A version that is locked outlives every rule.

    Raises ConfigurationError where a rule, ours or another, would drop what must be kept.
    """
    if 0 < wanted.noncurrent_days <= retention_days:
        raise ConfigurationError(
            f"In bucket {bucket} versions are locked for {retention_days} days and would expire after "
            f"{wanted.noncurrent_days}.",
            advice="Set noncurrent_days above retention_days, or to 0.",
        )
    error = require("minio.error", "minio").S3Error
    try:
        _keep(client, bucket, wanted)
    except error as refused:
        if refused.code not in _NOT_HERE:
            raise
        structlog.get_logger().warning("bucket_lifecycle_not_set", bucket=bucket, code=refused.code)


def _keep(client: Any, bucket: str, wanted: Lifecycle) -> None:
    lifecycle = require("minio.lifecycleconfig", "minio")
    try:
        held = client.get_bucket_lifecycle(bucket)
    except ValueError:  # an action that minio-py does not know: writing back what was not read would drop it
        structlog.get_logger().warning("bucket_lifecycle_not_set", bucket=bucket, code="unknown_action")
        return
    rules = [] if held is None else held.rules
    others = [rule for rule in rules if rule.rule_id != RULE]
    _require_originals_stay(bucket, others)
    # MinIO takes a rule without the part about uploads, which it drops after a day by itself: it is set at each start.
    rule = _rule(lifecycle, wanted)
    if not any(_is_same(rule, each) for each in rules):
        client.set_bucket_lifecycle(bucket, lifecycle.LifecycleConfig([*others, rule]))


def _rule(lifecycle: Any, wanted: Lifecycle) -> Any:
    common = require("minio.commonconfig", "minio")
    uploads = lifecycle.AbortIncompleteMultipartUpload(wanted.incomplete_upload_days)
    return lifecycle.Rule(
        common.ENABLED,
        rule_filter=common.Filter(prefix=""),
        rule_id=RULE,
        # A delete marker that has nothing beneath it any more.
        expiration=lifecycle.Expiration(expired_object_delete_marker=True),
        noncurrent_version_expiration=(
            lifecycle.NoncurrentVersionExpiration(wanted.noncurrent_days) if wanted.noncurrent_days else None
        ),
        abort_incomplete_multipart_upload=uploads if wanted.incomplete_upload_days else None,
    )


def _is_same(ours: Any, held: Any) -> bool:
    return bool(
        held.rule_id == RULE
        and held.status == ours.status
        and held.noncurrent_version_expiration == ours.noncurrent_version_expiration
        and held.abort_incomplete_multipart_upload == ours.abort_incomplete_multipart_upload
    )


def _require_originals_stay(bucket: str, others: Sequence[Any]) -> None:
    for rule in others:
        expires = rule.expiration is not None and (rule.expiration.days or rule.expiration.date)
        if expires and rule.status == "Enabled":
            raise ConfigurationError(
                f"The rule {rule.rule_id} of bucket {bucket} lets objects expire, and originals must not.",
                advice="Take the rule off the bucket: what is kept for how long is decided by the platform.",
            )
