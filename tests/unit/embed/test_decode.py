"""Whatever an allowed file holds becomes upright 8-bit sRGB, or is refused; nothing in between."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from services.embed.faces.geometry import turn_upright
from services.embed.gate.decode import decode, prepare_decoders
from services.embed.gate.formats import count_gif_frames, recognise_format
from services.embed.gate.limits import GateLimits, TooManyPixels, Undecodable
from services.embed.ports import DecodedImage

LIMITS = GateLimits(max_pixels=50_000_000, cpu_s=5, memory_bytes=0)
WIDTH, HEIGHT = 96, 64
Colours = npt.NDArray[np.int16]


@pytest.fixture(scope="module", autouse=True)
def _decoders() -> None:
    prepare_decoders(LIMITS)


def _scene() -> Image.Image:
    """Smooth, so that lossy formats keep it; every corner has a colour of its own."""
    x = np.linspace(0, 255, WIDTH)[None, :].repeat(HEIGHT, 0)
    y = np.linspace(0, 255, HEIGHT)[:, None].repeat(WIDTH, 1)
    return Image.fromarray(np.stack([x, y, 255 - x], axis=2).astype(np.uint8))


def _saved(picture: Image.Image, name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, name, **options)
    return stream.getvalue()


def _decoded(data: bytes) -> tuple[DecodedImage, Colours]:
    """The finding and the upright picture as RGB."""
    pixels = bytearray(1 << 20)
    image = decode(memoryview(data), memoryview(pixels), LIMITS)
    size = image.stored_width * image.stored_height * 3
    stored = np.frombuffer(pixels, np.uint8, size).reshape(image.stored_height, image.stored_width, 3)
    return image, turn_upright(stored, image.orientation)[:, :, ::-1].astype(np.int16)


def _differs(first: Colours, second: Image.Image) -> float:
    """Mean difference of colours."""
    return float(np.abs(first - np.asarray(second.convert("RGB"), np.int16)).mean())


LOSSLESS = {"PNG": "PNG", "BMP": "BMP", "TIFF": "TIFF"}
LOSSY = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "AVIF": {"quality": 95},
    "HEIF": {"quality": 95},
}


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY])
def test_every_allowed_format_keeps_its_colours(name: str) -> None:
    image, colours = _decoded(_saved(_scene(), name, **LOSSY.get(name, {})))
    assert (image.format, image.stored_width, image.stored_height) == (name, WIDTH, HEIGHT)
    assert (image.orientation, image.frame_count) == (1, 1)
    assert _differs(colours, _scene()) <= (4 if name in LOSSY else 0)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_honoured_in_every_format_that_has_it(name: str, orientation: int) -> None:
    """HEIC is turned by its own boxes, which its writer makes of the EXIF orientation; that is then only a note
    (ISO/IEC 23008-12)."""
    undo = {6: 8, 8: 6}.get(orientation, orientation)
    stored = Image.fromarray(np.ascontiguousarray(turn_upright(np.asarray(_scene()), undo)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Of an orientation as bytes the HEIC writer makes the boxes; an Exif object it only copies.
    tags = exif.tobytes() if name == "HEIF" else exif
    image, colours = _decoded(_saved(stored, name, exif=tags, **LOSSY.get(name, {})))
    assert image.upright_size == (WIDTH, HEIGHT)
    assert _differs(colours, _scene()) <= 4


def _with_transparency() -> Image.Image:
    picture = _scene().convert("RGBA")
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(0, (0, 0, WIDTH // 2, HEIGHT))
    picture.putalpha(alpha)
    return picture


def _on_white() -> Image.Image:
    picture = _scene()
    picture.paste((255, 255, 255), (0, 0, WIDTH // 2, HEIGHT))
    return picture


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF"])
def test_what_transparency_hides_is_hidden(name: str) -> None:
    options = {"lossless": True} if name == "WEBP" else {}
    assert _differs(_decoded(_saved(_with_transparency(), name, **options))[1], _on_white()) == 0


def test_grey_alpha_and_palette_transparency() -> None:
    grey = _with_transparency().convert("LA")
    assert _differs(_decoded(_saved(grey, "PNG"))[1], _on_white().convert("L")) <= 1
    palette = _on_white().quantize(64)
    transparent = palette.getpixel((0, 0))
    _, colours = _decoded(_saved(palette, "PNG", transparency=transparent))
    assert colours[0, 0].tolist() == [255, 255, 255]


MODES: dict[str, Callable[[], bytes]] = {
    "grey": lambda: _saved(_scene().convert("L"), "PNG"),
    "grey JPEG": lambda: _saved(_scene().convert("L"), "JPEG", quality=98),
    "grey 16 bit PNG": lambda: _saved(_deep_grey(), "PNG"),
    "grey 16 bit TIFF": lambda: _saved(_deep_grey(), "TIFF"),
    "float TIFF": lambda: _saved(Image.fromarray(np.asarray(_scene().convert("L"), np.float32) / 255), "TIFF"),
}


def _deep_grey() -> Image.Image:
    return Image.fromarray(np.asarray(_scene().convert("L")).astype(np.uint16) * 257)


@pytest.mark.parametrize("mode", MODES)
def test_grey_of_any_depth_is_scaled_not_clipped(mode: str) -> None:
    assert _differs(_decoded(MODES[mode]())[1], _scene().convert("L")) <= 1.5


def test_one_bit_and_palette() -> None:
    dithered = _scene().convert("1")
    assert _differs(_decoded(_saved(dithered, "PNG"))[1], dithered) == 0
    palette = _scene().quantize(256)
    for name in ("PNG", "GIF", "BMP"):
        assert _differs(_decoded(_saved(palette, name))[1], palette) == 0


def test_cmyk_jpeg_is_neither_negative_nor_washed_out() -> None:
    _, colours = _decoded(_saved(_scene().convert("CMYK"), "JPEG", quality=95, subsampling=0))
    assert _differs(colours, _scene()) <= 4


def _wide_gamut_profile() -> bytes:
    """sRGB with the red and the blue primary exchanged: a conversion that cannot be overlooked."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = (132 + 12 * index for index in range(count))
    tags = {bytes(profile[place : place + 4]): place for place in entries}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    profile[red + 4 : red + 12], profile[blue + 4 : blue + 12] = (
        profile[blue + 4 : blue + 12],
        profile[red + 4 : red + 12],
    )
    return bytes(profile)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_colour_profiles_are_applied(name: str) -> None:
    """The file's red means blue, so the decoded picture has the channels exchanged."""
    options = {"lossless": True} if name == "WEBP" else LOSSY.get(name, {})
    _, colours = _decoded(_saved(_scene(), name, icc_profile=_wide_gamut_profile(), **options))
    exchanged = Image.fromarray(np.asarray(_scene())[:, :, ::-1])
    assert _differs(colours, exchanged) <= 6


def test_an_srgb_profile_changes_nothing_and_a_broken_one_is_ignored() -> None:
    plain = _decoded(_saved(_scene(), "JPEG", quality=95))[1]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"not a profile", srgb[:200]):
        assert np.array_equal(_decoded(_saved(_scene(), "JPEG", quality=95, icc_profile=profile))[1], plain)


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY, "GIF"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_files_are_refused(name: str, share: float) -> None:
    data = _saved(_scene(), name, **LOSSY.get(name, {}))
    with pytest.raises(Undecodable):
        _decoded(data[: int(len(data) * share)])


def _progressive_cut(scan: int, share: float) -> bytes:
    """A progressive file that ends, with a proper end, so far into a scan."""
    data = _saved(_scene(), "JPEG", quality=95, progressive=True)
    starts = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"] + [len(data) - 2]
    start, end = starts[scan], starts[scan + 1]
    return data[: start + 14 + int(share * (end - start - 14))] + b"\xff\xd9"


@pytest.mark.parametrize("name", ["WEBP", "AVIF", "HEIF"])
def test_a_file_whose_end_was_never_written_is_refused_not_shown_half(name: str) -> None:
    noise = Image.fromarray(np.random.default_rng(6).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
    whole = _saved(noise, name, **({"lossless": True} if name == "WEBP" else {"quality": 95}))
    for appended in (b"", bytes(10_000)):
        assert _decoded(whole + appended)[0].format == name
    with pytest.raises(Undecodable, match="never written"):
        _decoded(whole[:-4200] + bytes(4200))


@pytest.mark.parametrize("scan", [0, 1, 4])
def test_a_progressive_file_without_all_of_its_light_is_refused_not_shown_grey(scan: int) -> None:
    """The scans that libjpeg writes: means, light 1 to 5, two of colour, light 6 to 63, then refinements."""
    with pytest.raises(Undecodable):
        _decoded(_progressive_cut(scan, 0.5))


def test_a_progressive_file_whose_refinements_stop_early_is_only_coarser() -> None:
    _, whole = _decoded(_saved(_scene(), "JPEG", quality=95, progressive=True))
    _, coarser = _decoded(_progressive_cut(9, 0.5))
    assert coarser.shape == whole.shape
    assert float(np.abs(coarser.astype(int) - whole.astype(int)).mean()) < 8


def test_a_progressive_header_that_claims_more_than_the_scans_hold_is_refused() -> None:
    data = bytearray(_saved(_scene(), "JPEG", quality=95, progressive=True))
    frame = data.index(b"\xff\xc2")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 2000, 2000)
    with pytest.raises(Undecodable):
        _decoded(bytes(data))


def test_a_corrupt_scan_is_refused_not_shown_grey() -> None:
    data = bytearray(_saved(_scene(), "JPEG", quality=95))
    middle = data.index(b"\xff\xda") + (len(data) - data.index(b"\xff\xda")) // 2
    data[middle : middle + 2] = b"\xff\xd9"  # the end, in the middle
    with pytest.raises(Undecodable):
        _decoded(bytes(data))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_pixel_limit_holds_before_pixels_are_read() -> None:
    png = bytearray(_saved(_scene(), "PNG"))
    png[16:24] = struct.pack(">II", 8000, 8000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    with pytest.raises(TooManyPixels):
        _decoded(bytes(png))


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_png_that_numbers_colours_without_a_palette_is_refused_not_shown_black() -> None:
    data = _saved(_scene().quantize(64), "PNG")
    start = data.index(b"PLTE") - 4
    with pytest.raises(Undecodable):
        _decoded(data[:start] + data[start + 12 + struct.unpack_from(">I", data, start)[0] :])


def test_frames_that_a_png_only_claims_are_not_counted() -> None:
    data = _saved(_scene(), "PNG")
    claim = _png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    assert _decoded(data[:33] + claim + data[33:])[0].frame_count == 1


@pytest.mark.parametrize(("tag", "value"), [(284, 2), (278, 16), (278, 0)])
def test_a_tiff_that_lacks_strips_or_planes_is_refused_not_shown_black(tag: int, value: int) -> None:
    """One strip of all rows and colours, of which the header says that it is one plane, or some rows, of several."""
    data = bytearray(_saved(_scene(), "TIFF"))
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    places = (directory + 2 + 12 * index for index in range(count))
    place = next(place for place in places if struct.unpack_from("<H", data, place)[0] == tag)
    struct.pack_into("<HII", data, place + 2, 4, 1, value)
    with pytest.raises(Undecodable):
        _decoded(bytes(data))


@pytest.mark.parametrize("pixels_at", [0, 14, 50, 53])
def test_a_bmp_whose_pixels_begin_within_its_header_is_refused_not_shown_shifted(pixels_at: int) -> None:
    data = bytearray(_saved(_scene(), "BMP"))
    assert struct.unpack_from("<II", data, 10) == (54, 40)
    struct.pack_into("<I", data, 10, pixels_at)
    with pytest.raises(Undecodable, match="within the header"):
        _decoded(bytes(data))


def test_a_bmp_may_leave_room_before_its_pixels_but_not_take_that_of_its_masks() -> None:
    plain = _saved(_scene(), "BMP")
    roomy = bytearray(plain[:54] + bytes(20) + plain[54:])
    struct.pack_into("<I", roomy, 10, 74)
    assert _differs(_decoded(bytes(roomy))[1], _scene()) == 0
    masked = bytearray(_saved(_scene().convert("RGBA"), "BMP")[:54] + struct.pack("<III", 0xFF0000, 0xFF00, 0xFF))
    masked += bytes(WIDTH * HEIGHT * 4)
    struct.pack_into("<HI", masked, 28, 32, 3)
    struct.pack_into("<I", masked, 10, 66)
    assert _decoded(bytes(masked))[0].format == "BMP"
    struct.pack_into("<I", masked, 10, 54)
    with pytest.raises(Undecodable, match="within the header"):
        _decoded(bytes(masked))


def test_the_first_frame_counts() -> None:
    red, blue = Image.new("RGB", (20, 10), "red"), Image.new("RGB", (20, 10), "blue")
    for name in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        image, colours = _decoded(_saved(red, name, save_all=True, append_images=[blue, red]))
        assert image.frame_count == 3, name
        assert colours[5, 10, 0] > 200, name
        assert colours[5, 10, 2] < 60, name


def test_gif_frames_are_counted_without_end_and_without_trust() -> None:
    red, blue = Image.new("RGB", (20, 10), "red"), Image.new("RGB", (20, 10), "blue")
    data = _saved(red, "GIF", save_all=True, append_images=[blue, red] * 10)
    assert count_gif_frames(memoryview(data), 64) == 21
    assert count_gif_frames(memoryview(data), 5) == 5
    assert count_gif_frames(memoryview(data[:-200]), 64) < 21


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"RIFF\0\0\0\0WEBP", "WEBP"),
        (b"RIFF\0\0\0\0AVI ", None),
        (b"II*\0", "TIFF"),
        (b"MM\0+", "TIFF"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x1cftypheic\0\0\0\0", "HEIF"),
        (b"\0\0\0\x1cftypisom\0\0\0\0", None),
        (b"<svg xmlns=", None),
        (b"%PDF-1.7", None),
        (b"", None),
    ],
)
def test_formats_are_told_by_content(head: bytes, name: str | None) -> None:
    assert recognise_format(head) == name


def _png_of_rows(rows: int, *, colour: int = 0, is_interlaced: bool = False, sizes: int | None = None) -> bytes:
    """64 rows are promised; so many come, in a stream that ends in order, in pieces of `sizes` bytes."""
    raw = zlib.compress((b"\x00" + bytes([colour]) * WIDTH) * rows)
    step = sizes or len(raw)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 0, 0, 0, int(is_interlaced))
    pieces = [(b"IDAT", raw[at : at + step]) for at in range(0, len(raw), step)]
    chunks = [(b"IHDR", header), *pieces, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


@pytest.mark.parametrize("is_interlaced", [False, True])
@pytest.mark.parametrize("rows", [1, HEIGHT // 2, HEIGHT - 1])
def test_a_png_that_lacks_rows_is_refused_not_shown_black(rows: int, is_interlaced: bool) -> None:
    with pytest.raises(Undecodable):
        _decoded(_png_of_rows(rows, colour=200, is_interlaced=is_interlaced))


@pytest.mark.parametrize("sizes", [None, 1, 7])
def test_a_png_whose_last_row_is_black_is_whole(sizes: int | None) -> None:
    assert _decoded(_png_of_rows(HEIGHT, sizes=sizes))[1].max() == 0
    for bits, mode in ((1, "1"), (8, "P"), (8, "RGBA")):
        black = Image.new(mode, (WIDTH + bits, HEIGHT))
        for interlace in (0, 1):
            assert _decoded(_saved(black, "PNG", interlace=interlace))[0].stored_width == WIDTH + bits
