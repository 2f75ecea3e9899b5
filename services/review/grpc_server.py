"""likeness.v1.Review over gRPC."""

from __future__ import annotations

import grpc

from services.review.workflow import Workflow
from services.rpc.v1 import review_pb2, review_pb2_grpc

SERVICE_NAME = "likeness.v1.Review"


class ReviewServicer(review_pb2_grpc.ReviewServicer):
    def __init__(self, workflow: Workflow) -> None:
        self._workflow = workflow

    def DescribeWorkflow(  # noqa: N802 - the name is the wire's
        self, request: review_pb2.DescribeWorkflowRequest, context: grpc.ServicerContext
    ) -> review_pb2.WorkflowDescription:
        return review_pb2.WorkflowDescription(
            version=self._workflow.version,
            findings=[finding.value for finding in self._workflow.findings],
            judgements_required=self._workflow.judgements_required,
        )
