from __future__ import annotations

import pytest

from tests.contracts.event_log import EventLogContract, LogBench


class TestMemoryLog(EventLogContract):
    @pytest.fixture
    def bench(self, memory_bench: LogBench) -> LogBench:
        return memory_bench
