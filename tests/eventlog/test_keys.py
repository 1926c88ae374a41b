from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from eventlog.keys import murmur2, partition_of


@given(st.binary(max_size=70))
def test_the_hash_is_kafkas(key: bytes) -> None:
    assert murmur2(key) & 0x7FFFFFFF == reference(key) & 0x7FFFFFFF


@pytest.mark.parametrize(
    ("key", "signed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971)],
)  # fmt: skip
def test_the_hash_gives_the_values_of_kafkas_own_test(key: bytes, signed: int) -> None:
    # org.apache.kafka.common.utils.UtilsTest.testMurmur2
    assert murmur2(key) == signed % 2**32


def test_a_key_stays_within_its_partitions() -> None:
    assert {partition_of(b"%d" % n, 6) for n in range(200)} == set(range(6))
