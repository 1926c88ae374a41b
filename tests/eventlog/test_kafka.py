from __future__ import annotations

import pytest

from tests.contracts.event_log import DurableLogContract, LogBench

pytestmark = pytest.mark.kafka


class TestKafkaLog(DurableLogContract):
    @pytest.fixture
    def bench(self, kafka_bench: LogBench) -> LogBench:
        return kafka_bench
