"""Between wire messages and biometric types."""

from __future__ import annotations

import numpy as np

from services.rpc.v1 import common_pb2, embed_pb2
from services.shared.biometric import (
    Assessment,
    Box,
    DetectedFace,
    FaceTemplate,
    ImageAnalysis,
    ImageInfo,
    MeasuredRate,
    ModelProvenance,
    ProbeSignal,
    Quality,
)

_LITTLE_ENDIAN_FLOAT = np.dtype("<f4")


def template_to_message(template: FaceTemplate) -> common_pb2.FaceTemplate:
    return common_pb2.FaceTemplate(
        vector=template.vector.astype(_LITTLE_ENDIAN_FLOAT).tobytes(),
        dimension=template.dimension,
        model_id=template.model_id,
    )


def template_from_message(message: common_pb2.FaceTemplate) -> FaceTemplate:
    """ValueError when the bytes are not `dimension` floats."""
    vector = np.frombuffer(message.vector, dtype=_LITTLE_ENDIAN_FLOAT).astype(np.float32)
    if vector.shape != (message.dimension,):
        raise ValueError(f"template of {vector.shape[0]} values, {message.dimension} announced")
    return FaceTemplate(vector=vector, model_id=message.model_id)


def provenance_to_message(model: ModelProvenance) -> common_pb2.ModelProvenance:
    return common_pb2.ModelProvenance(
        model_id=model.model_id,
        detector=model.detector,
        detector_sha256=model.detector_sha256,
        recogniser=model.recogniser,
        recogniser_sha256=model.recogniser_sha256,
        licence=model.licence,
        dimension=model.dimension,
        preprocessing_version=model.preprocessing_version,
        runtime=model.runtime,
        provider=model.provider,
    )


def provenance_from_message(message: common_pb2.ModelProvenance) -> ModelProvenance:
    return ModelProvenance(
        model_id=message.model_id,
        detector=message.detector,
        detector_sha256=message.detector_sha256,
        recogniser=message.recogniser,
        recogniser_sha256=message.recogniser_sha256,
        licence=message.licence,
        dimension=message.dimension,
        preprocessing_version=message.preprocessing_version,
        runtime=message.runtime,
        provider=message.provider,
    )


def face_to_message(face: DetectedFace) -> embed_pb2.Face:
    return embed_pb2.Face(
        box=common_pb2.Box(x=face.box.x, y=face.box.y, width=face.box.width, height=face.box.height),
        landmarks=[common_pb2.Point(x=x, y=y) for x, y in face.landmarks],
        detection_score=face.detection_score,
        inter_eye_px=face.inter_eye_px,
        quality=common_pb2.Quality(unified=face.quality.unified, components=dict(face.quality.components)),
        template=template_to_message(face.template) if face.template is not None else None,
        assessment=_assessment_to_message(face.assessment) if face.assessment is not None else None,
        signals=[
            embed_pb2.ProbeSignal(
                name=signal.name, value=signal.value, threshold=signal.threshold, is_raised=signal.is_raised
            )
            for signal in face.signals
        ],
        chip=face.chip,
    )


def _assessment_to_message(assessment: Assessment) -> embed_pb2.Assessment:
    rate = assessment.false_non_match
    return embed_pb2.Assessment(
        grade=assessment.grade,
        misses=rate.misses,
        searches=rate.searches,
        low=rate.low,
        high=rate.high,
        threshold_fpir=rate.threshold_fpir,
        basis=rate.basis,
        advice=assessment.advice,
    )


def _assessment_from_message(message: embed_pb2.Assessment) -> Assessment:
    rate = MeasuredRate(
        misses=message.misses,
        searches=message.searches,
        low=message.low,
        high=message.high,
        threshold_fpir=message.threshold_fpir,
        basis=message.basis,
    )
    return Assessment(message.grade, rate, tuple(message.advice))


def face_from_message(message: embed_pb2.Face) -> DetectedFace:
    return DetectedFace(
        box=Box(message.box.x, message.box.y, message.box.width, message.box.height),
        landmarks=tuple((point.x, point.y) for point in message.landmarks),
        detection_score=message.detection_score,
        inter_eye_px=message.inter_eye_px,
        quality=Quality(message.quality.unified, dict(message.quality.components)),
        template=template_from_message(message.template) if message.HasField("template") else None,
        assessment=_assessment_from_message(message.assessment) if message.HasField("assessment") else None,
        signals=tuple(
            ProbeSignal(signal.name, signal.value, signal.threshold, signal.is_raised) for signal in message.signals
        ),
        chip=message.chip,
    )


def analysis_to_message(analysis: ImageAnalysis) -> embed_pb2.AnalyseResponse:
    image = analysis.image
    return embed_pb2.AnalyseResponse(
        image=embed_pb2.ImageInfo(
            format=image.format,
            width=image.width,
            height=image.height,
            exif_orientation=image.exif_orientation,
            frame_count=image.frame_count,
            decode_scale=image.decode_scale,
            file_signals=image.file_signals,
        ),
        faces=[face_to_message(face) for face in analysis.faces],
        model=provenance_to_message(analysis.model),
        timings=embed_pb2.StageTimings(**{f"{stage}_ms": value for stage, value in analysis.timings_ms.items()}),
    )


def analysis_from_message(message: embed_pb2.AnalyseResponse) -> ImageAnalysis:
    image = message.image
    return ImageAnalysis(
        image=ImageInfo(
            format=image.format,
            width=image.width,
            height=image.height,
            exif_orientation=image.exif_orientation,
            frame_count=image.frame_count,
            decode_scale=image.decode_scale,
            file_signals=tuple(image.file_signals),
        ),
        faces=tuple(face_from_message(face) for face in message.faces),
        model=provenance_from_message(message.model),
        timings_ms={
            "gate": message.timings.gate_ms,
            "detect": message.timings.detect_ms,
            "template": message.timings.template_ms,
            "queue": message.timings.queue_ms,
        },
    )
