from __future__ import annotations

from fractions import Fraction

import numpy as np

from services.embed.film.pixels import comb_share, square_size, without_combs


def scene(shift: int) -> np.ndarray:
    """A bright bar on a soft ground."""
    picture = np.tile(np.linspace(40, 90, 160).astype(np.uint8)[None, :, None], (120, 1, 3))
    picture[20:100, 40 + shift : 60 + shift] = 230
    return picture


def interlaced(shift: int) -> np.ndarray:
    """Two moments woven into one frame."""
    woven = scene(0)
    woven[1::2] = scene(shift)[1::2]
    return woven


def test_a_moving_bar_in_two_fields_is_combed_and_a_still_one_is_not() -> None:
    assert comb_share(interlaced(12)) > 0.02
    assert comb_share(interlaced(0)) == 0


def test_combs_are_taken_out_and_the_upper_field_stays() -> None:
    cleaned = without_combs(interlaced(12))
    assert cleaned.shape == (120, 160, 3)
    assert comb_share(cleaned) == 0
    assert np.array_equal(cleaned[0::2], interlaced(12)[0::2])


def test_a_picture_without_combs_is_left_alone() -> None:
    picture = scene(3)
    assert without_combs(picture) is picture


def test_pixels_that_are_not_square_are_stretched_and_nonsense_is_ignored() -> None:
    assert square_size(720, 576, Fraction(16, 15)) == (768, 576)
    assert square_size(704, 288, Fraction(1, 2)) == (704, 576)
    assert square_size(640, 480, None) == (640, 480)
    assert square_size(640, 480, Fraction(1000, 1)) == (640, 480)
    assert square_size(640, 480, Fraction(0)) == (640, 480)
