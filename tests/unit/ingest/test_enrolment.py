"""Derived ids and synthetic vectors: the same again, whatever happened in between."""

from __future__ import annotations

from uuid import UUID

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.enrolling.enrolment import derived_id
from services.ingest.synthetic import synthetic_vectors
from services.shared.ids import is_id, new_id


@given(st.text(max_size=30))
def test_a_derived_id_is_a_uuid7_of_the_same_time(label: str) -> None:
    base = new_id()
    derived = derived_id(base, label)
    assert derived == derived_id(base, label)
    assert is_id(derived)
    assert (UUID(derived).version, UUID(derived).variant) == (7, UUID(base).variant)
    assert UUID(derived).int >> 80 == UUID(base).int >> 80


def test_derived_ids_differ_by_label_and_base() -> None:
    base, other = new_id(), new_id()
    assert len({derived_id(base, "a"), derived_id(base, "b"), derived_id(other, "a"), base, other}) == 5


def test_synthetic_vectors_are_unit_repeatable_and_spread_like_strangers() -> None:
    block = synthetic_vectors(7, 0, 128)
    assert block.dtype == np.float32
    assert np.allclose(np.linalg.norm(block, axis=1), 1, atol=1e-5)
    assert np.array_equal(block, synthetic_vectors(7, 0, 128))
    assert not np.array_equal(block, synthetic_vectors(7, 1, 128))
    assert not np.array_equal(block, synthetic_vectors(8, 0, 128))
    cosines = (block[:1000] @ block[1000:2000].T).ravel()
    assert abs(float(cosines.mean())) < 0.02
    assert 0.10 < float(cosines.std()) < 0.13
