"""The store's tables, as both dialects have them.

Columns hold text, whole numbers, doubles or bytes only, so that what a driver takes and gives back is the same on SQLite and
PostgreSQL without conversion.  Times are ms since 1970 UTC; 0 is "not yet" or "never", "" is "none"; JSON is text.  Flags are
0 or 1.  Every index costs the hot path: each has its query beside it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

SHARDS = 64
NEVER_MS = 1 << 62  # the due time of a lane that waits until someone releases it
FILE, API = "file", "api"  # who manages a source, an agent or a subscription
SOURCES, ROSTER = "sources", "roster"  # names in `versions`: what changes sources; what changes agents and subscriptions

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _text(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=key, nullable=False, server_default=None if key else text("''"))


def _number(name: str, *, key: bool = False) -> Column[int]:
    return Column(
        name, BigInteger, primary_key=key, nullable=False, autoincrement=False, server_default=None if key else text("0")
    )


def _double(name: str) -> Column[float]:
    return Column(name, Double, nullable=False, server_default=text("0"))


def _bytes(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=True)


def _seq() -> Column[int]:
    """A number that rises with every row; SQLite calls such a column INTEGER and keeps the rows in its order."""
    return Column("seq", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True)


teams = Table("teams", metadata, _text("id", key=True), _number("created_ms"), sqlite_with_rowid=False)

# Bumped in the transaction of each change of configuration; readers of a set compare the number and read again.
versions = Table("versions", metadata, _text("name", key=True), _number("number"), sqlite_with_rowid=False)

sources = Table(
    "sources",
    metadata,
    _text("uid", key=True),
    _text("team"),
    _text("name"),
    _text("provider"),
    _text("spec"),  # JSON, without secrets
    _bytes("sealed"),  # its secrets, sealed by the vault
    _text("managed_by"),
    _number("created_ms"),
    _number("updated_ms"),
    UniqueConstraint("team", "name"),
)

agents = Table(
    "agents",
    metadata,
    _text("uid", key=True),
    _text("team"),
    _text("name"),
    _number("shard"),
    _text("spec"),
    _bytes("sealed"),
    _text("managed_by"),
    _text("hold"),  # why it is not called (misconfigured, failing); "" where it is
    _number("hold_until_ms"),  # its next probe
    _number("hold_pauses"),
    _number("hold_since_ms"),
    _number("hold_at_ms"),  # when these were written: a change of the agent after it may have mended it
    _number("created_ms"),
    _number("updated_ms"),
    UniqueConstraint("team", "name"),
)

# A deleted subscription keeps its row, `draining`, until its queue is empty; its name may be taken again at once, hence no
# unique constraint but a partial index over those that are not draining.
subscriptions = Table(
    "subscriptions",
    metadata,
    _text("uid", key=True),
    _text("team"),
    _text("name"),
    _text("agent"),
    _text("spec"),
    _number("generation"),
    _text("state"),  # live | paused | disabled: this column is today's, the one in `spec` is what was asked for
    _text("disabled_reason"),
    _text("managed_by"),
    _number("draining"),
    _number("created_ms"),
    _number("updated_ms"),
)
Index(
    "uq_subscriptions_team_name",
    subscriptions.c.team,
    subscriptions.c.name,
    unique=True,
    postgresql_where=subscriptions.c.draining == 0,
    sqlite_where=subscriptions.c.draining == 0,
)

api_keys = Table(
    "api_keys",
    metadata,
    _text("id", key=True),
    _text("team"),
    _text("name"),
    _text("role"),
    _bytes("hash"),
    _text("prefix"),  # the first characters of the key, for people
    _text("agent"),  # the agent that a key of the role agent speaks for
    _number("created_ms"),
    _number("expires_ms"),
    _number("revoked_ms"),
    _number("last_used_ms"),
)
Index("ix_api_keys_hash", api_keys.c.hash, unique=True)

audit = Table(
    "audit",
    metadata,
    _seq(),
    _number("at_ms"),
    _text("team"),
    _text("actor"),
    _text("act"),
    _text("object"),
    _text("detail"),
    _text("prev_hash"),
    _text("hash"),
    sqlite_autoincrement=True,
)

refusals = Table(
    "refusals",
    metadata,
    _seq(),
    _text("team"),
    _text("source"),
    _number("at_ms"),
    _text("code"),
    _text("step"),
    _text("reason"),
    _text("method"),
    _text("headers"),  # JSON
    _text("body_digest"),
    _number("body_bytes"),
    _text("remote"),
)
Index("ix_refusals_source", refusals.c.team, refusals.c.source, refusals.c.seq)  # the last ones of a source

# --- what was read from the log --------------------------------------------------------------------------------------------

cursors = Table(
    "cursors",
    metadata,
    _text("log_id", key=True),
    _text("topic", key=True),
    _number("partition", key=True),
    _number("position"),  # the next one to read
    sqlite_with_rowid=False,
)

deaths = Table(
    "deaths",
    metadata,
    _text("log_id", key=True),
    _text("topic", key=True),
    _number("partition", key=True),
    _number("position", key=True),
    _number("count"),
    _text("reason"),
    sqlite_with_rowid=False,
)

rejected = Table(
    "rejected",
    metadata,
    _seq(),
    _text("log_id"),
    _text("topic"),
    _number("partition"),
    _number("position"),
    _text("key"),
    _text("headers"),  # JSON
    _bytes("value"),
    _number("appended_ms"),
    _text("reason"),
    _number("at_ms"),
    UniqueConstraint("log_id", "topic", "partition", "position"),
)

seen = Table("seen", metadata, _text("event_id", key=True), _number("expires_ms"), sqlite_with_rowid=False)

# `seq` rises in the order of admission: lists page by it.  `body_digest` is the SHA-256 of the request's body, in `bodies`.
# On PostgreSQL `events` and `bodies` lie by day (`store.days`), with the day's time in each unique key; that an id is there
# once over all days is what `seen` sees to.
events = Table(
    "events",
    metadata,
    _seq(),
    _text("id"),
    _text("team"),
    _text("source"),
    _text("provider"),
    _text("family"),
    _text("type"),
    _text("kind"),
    _text("subject"),
    _text("partitionkey"),
    _number("time_ms"),
    _number("received_ms"),
    _number("appended_ms"),
    _number("admitted_ms"),
    _text("topic"),
    _number("partition"),
    _number("position"),
    _text("envelope"),  # JSON: `Event.envelope()`
    _text("pointer"),
    _bytes("body_digest"),
    _text("flags"),  # comma-separated
    _text("replay_id"),
    _number("invocations"),  # how many were planned for it when it was admitted
    UniqueConstraint("id"),
)
Index("ix_events_admitted", events.c.admitted_ms)  # lists by time, and retention
Index("ix_events_thing", events.c.partitionkey, events.c.seq)  # the last ones of a thing, for contexts

bodies = Table(
    "bodies",
    metadata,
    _bytes("digest"),
    _text("coding"),  # "zstd" or "" (as it came)
    _number("size"),  # of the bytes as they came
    _number("last_ms"),  # the end of the day in which an event last used it
    _bytes("body"),
    PrimaryKeyConstraint("digest"),
)
Index("ix_bodies_last", bodies.c.last_ms)  # retention

# --- the ledger --------------------------------------------------------------------------------------------------------------

# `seq` is the order within a lane: it is given while the lane's row is locked.  `ended_ms` is 0 while it is open.
invocations = Table(
    "invocations",
    metadata,
    _seq(),
    _text("id"),
    _text("team"),
    _text("event_id"),
    _text("subscription_uid"),
    _text("subscription"),
    _number("generation"),
    _text("agent"),
    _number("shard"),
    _text("lane"),
    _text("ordering_key"),
    _text("ordering"),  # strict | latest | none
    _text("state"),
    _text("reason"),
    _text("outcome"),
    _number("attempts"),  # all that were ever opened
    _number("tries"),  # those of the present budget
    _number("budget_ms"),  # when a redrive began the present budget; 0: with its creation
    _number("created_ms"),
    _number("due_ms"),
    _number("ended_ms"),
    _text("replay_id"),
    _number("step"),  # of its subscription's fallback chain; 0: not begun
    _text("home_agent"),  # whose it was before the chain began
    _number("home_shard"),
    _text("fell_for"),  # what it would have been buried for, last
    UniqueConstraint("id"),
)
Index("ix_invocations_event", invocations.c.event_id)  # trace, retention
Index(
    "ix_invocations_open",
    invocations.c.lane,
    invocations.c.seq,
    postgresql_where=invocations.c.ended_ms == 0,
    sqlite_where=invocations.c.ended_ms == 0,
)  # the lane's head
Index(
    "ix_invocations_buried",
    invocations.c.team,
    invocations.c.seq,
    postgresql_where=invocations.c.state == "buried",
    sqlite_where=invocations.c.state == "buried",
)  # dead letters

# What a subscription's dedup holds: the digest names the subscription, the replay and the key.  `expires_ms` is the receipt of
# the event that `invocation_id` stands for, and the window.
dedups = Table(
    "dedups",
    metadata,
    _text("key_digest", key=True),
    _text("subscription_uid"),
    _number("expires_ms"),
    _text("invocation_id"),
    sqlite_with_rowid=False,
)
Index("ix_dedups_expires", dedups.c.expires_ms)  # retention

# Invocations that were planned and not queued: folded into an earlier one of the same key, or dropped as late.
folds = Table(
    "folds",
    metadata,
    _text("id", key=True),  # of the invocation that was not queued
    _text("event_id"),
    _text("subscription_uid"),
    _text("invocation_id"),  # the one that it is a duplicate of; "" where it was late
    _text("replay_id"),
    _number("at_ms"),
    _text("stale"),  # why it was late, as JSON, where that is the reason; "": a dedup's
    sqlite_with_rowid=False,
)
Index("ix_folds_event", folds.c.event_id)  # trace, retention

# What flow control knows of an invocation; most have no row.  `digest_id` is the invocation that handed it over with others,
# its own id where it is that one itself.
flows = Table(
    "flows",
    metadata,
    _text("invocation_id", key=True),
    _text("limit_key"),  # what its concurrency is counted by
    _text("stale"),  # why it is late, as JSON
    _text("digest_id"),
    sqlite_with_rowid=False,
)
Index(
    "ix_flows_digest",
    flows.c.digest_id,
    postgresql_where=flows.c.digest_id != "",
    sqlite_where=flows.c.digest_id != "",
)  # the members of a digest

# The newest event that a key has shown to a subscription which looks for late ones.
marks = Table(
    "marks",
    metadata,
    _text("key_digest", key=True),
    _text("version"),
    _number("time_ms"),
    _text("event_id"),
    _number("at_ms"),
    sqlite_with_rowid=False,
)
Index("ix_marks_at", marks.c.at_ms)  # retention

# A lane exists while it has unfinished invocations: `queued` counts them.  `due_ms` is its head's, NEVER_MS where that waits
# until someone releases it; `hold` is why the head waits.  A lane in flight keeps its due time: its owner knows what it has.
lanes = Table(
    "lanes",
    metadata,
    _text("id", key=True),
    _text("team"),
    _text("subscription_uid"),
    _text("agent"),
    _number("shard"),
    _number("due_ms"),
    _number("queued"),
    _text("hold"),
    sqlite_with_rowid=False,
)
Index("ix_lanes_due", lanes.c.team, lanes.c.agent, lanes.c.due_ms)  # the due poll, agent by agent

# Keyed by the invocation's `seq`, so that new rows lie together on disk.  `ended_ms` is 0 while the attempt is open.
attempts = Table(
    "attempts",
    metadata,
    _number("invocation_seq", key=True),
    _number("number", key=True),
    _number("started_ms"),
    _number("ended_ms"),
    _number("deadline_ms"),
    _text("owner"),
    _number("epoch"),
    _text("outcome"),
    _number("status"),
    _text("error"),
    _bytes("answer"),
    _double("duration_ms"),
    _number("sent"),
    _number("tokens"),
    _number("bytes_sent"),
    _text("context_digest"),
    _number("raw_tokens"),  # of the vendor's whole body, estimated
    _number("missing"),  # how much that its context asked for was not to be had
    _number("cut"),  # how much was left out of it
    _bytes("sent_body"),  # what was sent, packed by `store.sent`; NULL where it is not kept
    sqlite_with_rowid=False,
)

# The last supervised run of an invocation: made where an agent accepts with a 202, reports before that, or is to fetch its
# work.  `ended_ms` is 0 while it is open.  `waiting` is 1 while a pull agent has not fetched `offer`.
runs = Table(
    "runs",
    metadata,
    _number("invocation_seq", key=True),
    _number("number"),  # of the attempt that it belongs to
    _text("team"),
    _text("agent"),
    _number("begun_ms"),
    _number("waiting"),
    _number("lease_ms"),  # until when it counts as alive though nothing is heard of it
    _number("span_ms"),  # how long each sign of life carries it
    _number("ends_ms"),  # when it must have ended
    _number("beats"),
    _number("beat_ms"),
    _text("signal"),  # "" | cancel
    _text("worker"),  # who fetched it, as it called itself
    _text("checkpoint"),  # JSON: outlives its run, for the next attempt
    _number("checkpoint_ms"),
    _text("tried"),
    _text("blocked"),
    _text("next"),
    _number("status_ms"),
    _number("notes"),  # how many lines `run_notes` ever had
    _number("ended_ms"),
    _text("verdict"),
    _text("note"),
    _text("report"),  # JSON: what it reported at its end
    _bytes("offer"),
    sqlite_with_rowid=False,
)
Index(
    "ix_runs_open",
    runs.c.team,
    runs.c.agent,
    runs.c.invocation_seq,
    postgresql_where=runs.c.ended_ms == 0,
    sqlite_where=runs.c.ended_ms == 0,
)  # an agent's open runs: its cap, and what it may fetch

# What happened in the runs of an invocation, for people: the last 64 lines, by a place that goes round.
run_notes = Table(
    "run_notes",
    metadata,
    _number("invocation_seq", key=True),
    _number("place", key=True),
    _number("number"),
    _number("at_ms"),
    _text("kind"),
    _text("detail"),
    sqlite_with_rowid=False,
)

# Pull agents that wait for work now, so that no more is offered than is asked for.
pollers = Table(
    "pollers",
    metadata,
    _text("team", key=True),
    _text("agent", key=True),
    _text("id", key=True),
    _number("want"),
    _number("until_ms"),
    sqlite_with_rowid=False,
)

# Of attempts that failed: the request's address and headers and the answer's headers, without secrets.
exchanges = Table(
    "exchanges",
    metadata,
    _number("invocation_seq", key=True),
    _number("number", key=True),
    _bytes("exchange"),  # JSON
    sqlite_with_rowid=False,
)

# The links of fallback chains that invocations went to.  `due_ms` is when the link begins; `attempts`: how many were before.
fallbacks = Table(
    "fallbacks",
    metadata,
    _seq(),
    _number("invocation_seq"),
    _number("at_ms"),
    _number("step"),
    _text("kind"),  # wait | agent | notify | answer
    _text("agent"),
    _number("attempts"),
    _number("due_ms"),
    _text("reason"),
)
Index("ix_fallbacks_invocation", fallbacks.c.invocation_seq)  # trace, retention

shards = Table(
    "shards",
    metadata,
    _number("id", key=True),
    _text("owner"),
    _number("epoch"),
    _number("lease_ms"),  # until when, by the database's clock
    sqlite_with_rowid=False,
)

# Who asks for shards, so that a fair share can be reckoned before the newcomer holds any.
owners = Table("owners", metadata, _text("id", key=True), _number("lease_ms"), sqlite_with_rowid=False)

# How many attempts a team may make in each span, and how many of the present span are given out to dispatchers.
quotas = Table(
    "quotas",
    metadata,
    _text("team", key=True),
    _number("attempts"),
    _number("per_ms"),
    _number("span_ms"),  # when the present span began, by the database's clock
    _number("taken"),
    sqlite_with_rowid=False,
)

outbox = Table("outbox", metadata, _seq(), _text("key"), _text("body"), sqlite_autoincrement=True)

# --- the rest ----------------------------------------------------------------------------------------------------------------

meta = Table("meta", metadata, _text("key", key=True), _text("value"), sqlite_with_rowid=False)

# A replay or a redrive by query: how far it is.
progress = Table(
    "progress",
    metadata,
    _text("id", key=True),
    _text("team"),
    _text("kind"),  # replay | redrive
    _text("query"),  # JSON
    _text("state"),  # running | done | failed
    _text("reason"),
    _text("actor"),
    _number("total"),
    _number("done"),
    _text("position"),  # where it goes on after a restart
    _number("created_ms"),
    _number("updated_ms"),
)

# --- what contexts draw on ---------------------------------------------------------------------------------------------------

# Every change of a fact is a version; a value of null takes it back.
facts = Table(
    "facts",
    metadata,
    _text("team", key=True),
    _text("thing", key=True),  # an ordering key
    _text("name", key=True),
    _number("version", key=True),
    _text("value"),  # JSON
    _text("actor"),
    _text("invocation_id"),  # the run that it was written in; "" where none was
    _number("at_ms"),
    _number("expires_ms"),
    _number("pinned"),
    sqlite_with_rowid=False,
)
Index(
    "ix_facts_expiring",
    facts.c.expires_ms,
    postgresql_where=facts.c.expires_ms > 0,
    sqlite_where=facts.c.expires_ms > 0,
)  # retention

credentials = Table(
    "credentials",
    metadata,
    _text("team", key=True),
    _text("name", key=True),
    _bytes("sealed"),
    _number("updated_ms"),
    sqlite_with_rowid=False,
)

# What agents' reports taught about how many tokens a model family makes of a text.
calibrations = Table(
    "calibrations",
    metadata,
    _text("team", key=True),
    _text("family", key=True),
    _number("version"),  # rises when the factor changes
    _number("factor_permille"),  # 0: the family's default
    _text("samples"),  # JSON: the last ones
    _number("updated_ms"),
    sqlite_with_rowid=False,
)

# Which parts of events a subscription's agents fetched by reference: its view may want them.
fetches = Table(
    "fetches",
    metadata,
    _text("subscription_uid", key=True),
    _text("pointer", key=True),
    _number("count"),
    _number("last_ms"),
    sqlite_with_rowid=False,
)
