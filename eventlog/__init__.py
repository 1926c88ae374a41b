"""The event log: one contract (`log`), three drivers (`memory`, `sql`, `kafka`), opened by URL (`connect`)."""
