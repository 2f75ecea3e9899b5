"""Colours: whatever a file holds becomes 8-bit sRGB, blue first, as the networks were trained on."""

from __future__ import annotations

import hashlib
import io
from typing import cast

import numpy as np
from PIL import Image, ImageCms

_BAND_ROWS = 256  # pixels leave Pillow in bands, so that no second copy of a large picture is made
_PROFILE_BYTES = 4 * 1024 * 1024
_CUBE = np.stack(np.meshgrid(*[np.linspace(0, 255, 6, dtype=np.uint8)] * 3, indexing="ij"), axis=-1).reshape(1, -1, 3)
_SRGB = ImageCms.createProfile("sRGB")

_near_srgb: dict[bytes, bool] = {}


def write_bgr(picture: Image.Image, pixels: memoryview) -> None:
    """Write an RGB picture, rows without gaps, blue first."""
    width, height = picture.size
    for top in range(0, height, _BAND_ROWS):
        bottom = min(height, top + _BAND_ROWS)
        band = picture.crop((0, top, width, bottom)) if height > _BAND_ROWS else picture
        pixels[top * width * 3 : bottom * width * 3] = band.tobytes("raw", "BGR")


def convert_in_place(pixels: memoryview, width: int, height: int, profile: bytes) -> None:
    """Bring BGR pixels from their RGB profile to sRGB; nothing where that moves no colour or the profile is broken."""
    if is_near_srgb(profile):
        return
    stored = np.frombuffer(pixels, np.uint8, width * height * 3).reshape(height, width, 3)
    picture = Image.frombuffer("RGB", (width, height), stored, "raw", "BGR", 0, 1)
    write_bgr(to_srgb(picture, profile), pixels)


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """An opaque 8-bit sRGB picture of any mode that Pillow loads."""
    picture = _eight_bit(_opaque(picture))
    if profile and picture.mode in {"RGB", "L", "CMYK", "LAB"} and len(profile) <= _PROFILE_BYTES:
        converted = _apply_profile(picture, profile)
        if converted is not None:
            return converted
    if picture.mode == "LAB":
        return cast(
            Image.Image, ImageCms.profileToProfile(picture, ImageCms.createProfile("LAB"), _SRGB, outputMode="RGB")
        )
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def is_near_srgb(profile: bytes) -> bool:
    """Whether a profile moves no colour by more than two steps of 255, or cannot be used at all."""
    key = hashlib.sha256(profile).digest()
    if key not in _near_srgb:
        if len(_near_srgb) > 256:
            _near_srgb.clear()
        cube = Image.fromarray(_CUBE)
        converted = None if len(profile) > _PROFILE_BYTES else _apply_profile(cube, profile)
        moved = 0 if converted is None else int(np.abs(np.asarray(converted, np.int16) - _CUBE).max())
        _near_srgb[key] = moved <= 2
    return _near_srgb[key]


def _apply_profile(picture: Image.Image, profile: bytes) -> Image.Image | None:
    """None when the profile does not fit the picture: such profiles are common and say nothing about the pixels."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return cast(Image.Image, ImageCms.profileToProfile(picture, source, _SRGB, outputMode="RGB"))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _opaque(picture: Image.Image) -> Image.Image:
    """Transparency shown on white, so that a face hidden by it is hidden from the networks too."""
    if picture.mode in {"RGBa", "La"}:
        picture = picture.convert("RGBA" if picture.mode == "RGBa" else "LA")
    if picture.mode in {"PA", "P"} or "transparency" in picture.info:
        has_alpha = picture.mode == "PA" or "transparency" in picture.info
        picture = picture.convert("RGBA" if has_alpha else "RGB")
    if picture.mode not in {"RGBA", "LA"}:
        return picture
    alpha = picture.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return picture.convert("RGB" if picture.mode == "RGBA" else "L")
    opaque = picture.convert("RGB" if picture.mode == "RGBA" else "L")
    white = Image.new(opaque.mode, opaque.size, "white")
    white.paste(opaque, mask=alpha)
    return white


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Deep greys scaled by their range, never clipped: 16 bits by 256, more bits and floats by their largest value."""
    if picture.mode not in {"I", "F"} and not picture.mode.startswith("I;16"):
        return picture.convert("L") if picture.mode == "1" else picture
    values = np.nan_to_num(np.asarray(picture, dtype=np.float32), posinf=0, neginf=0)
    if picture.mode.startswith("I;16"):
        largest = 65535.0
    else:
        largest = next(
            (limit for limit in (1.0, 255.0, 65535.0) if values.max(initial=0) <= limit), float(values.max())
        )
        if picture.mode == "I" and largest == 1.0:
            largest = 255.0
    return Image.fromarray((values.clip(0, largest) * (255.0 / largest)).astype(np.uint8))
