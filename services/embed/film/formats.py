"""The allow-list of films: containers by their first bytes, decoders by name.

The demultiplexer is chosen here and forced, never guessed by the library: playlists and session descriptions, whose
readers open other files and connections, cannot be reached whatever a file is called or holds.
"""

from __future__ import annotations

HEAD_BYTES = 1024  # enough to see five packets of a transport stream

# The first box of a file of the ISO base media family (MP4, MOV, 3GP), also of QuickTime's older ones.
_FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_STILL_BRANDS = frozenset({b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2"})
_PACKET_BYTES = 188  # of a transport stream

# As FFmpeg names its decoders. What CCTV recorders, phones, body-worn cameras and the web write, and no more: a decoder
# that is not here is never given a byte.
DECODERS = frozenset(
    {
        "h264",
        "hevc",
        "av1",
        "libdav1d",
        "vp8",
        "vp9",
        "mpeg1video",
        "mpeg2video",
        "mpeg4",
        "msmpeg4v2",
        "msmpeg4",
        "h263",
        "flv",
        "mjpeg",
        "png",
        "dvvideo",
        "prores",
        "wmv2",
        "wmv3",
        "vc1",
        "rawvideo",
    }
)


def recognise_container(head: bytes) -> str | None:
    """FFmpeg's name of the demultiplexer for a file that begins like this; None when not allowed."""
    if head[4:8] in _FIRST_BOXES:
        return None if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS else "mov"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return "avi"
    if head[:3] == b"FLV":
        return "flv"
    if head[:4] == b"\x00\x00\x01\xba":
        return "mpeg"
    return "mpegts" if _is_transport_stream(head) else None


def _is_transport_stream(head: bytes) -> bool:
    """Packets begin with the same byte; a recording that was cut may begin in the middle of one."""
    for start in range(min(_PACKET_BYTES, len(head))):
        marks = head[start::_PACKET_BYTES]
        if len(marks) >= 3 and set(marks) == {0x47}:
            return True
    return False
