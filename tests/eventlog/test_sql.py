from __future__ import annotations

import pytest

from tests.contracts.event_log import DurableLogContract, LogBench


class TestSqlLog(DurableLogContract):
    @pytest.fixture
    def bench(self, sqlite_bench: LogBench) -> LogBench:
        return sqlite_bench
