"""The generic view: what is left of a body when links, internal ids, empties and repeated things are taken out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Any

from curator.attachments import reference
from curator.budget import Path, at
from curator.vocabulary import IDENTITY, INSIDE_MENTION, MENTIONED, NAMES, NOISE

MAX_TEXT_CHARS = 600
MAX_ITEMS = 12
MAX_DEPTH = 8
MENTION_TEXT_CHARS = 200
LONG_LINK_CHARS = 200
MAX_LINK_HOLDERS = 2
MAX_FIELDS = 400  # of one object; a CRM record with 5,000 custom fields is cut there, with a mark

_NOISE_KEY = re.compile(
    r"(?i)avatar|gravatar|_set$|html$|emojiurl|_token$|token_hash|descriptiondata|bodydata|^x-|statement_descriptor"
)
_LINK_KEY = re.compile(r"(?i)(?:^|[_-])(?:url|urls|uri|href|link)$|(?:Url|URL|Uri|URI|Href|Link)s?$")
# The link that people open, as opposed to the many that programs call.
_OPENED = frozenset({
    "url", "link", "permalink", "html_link", "htmllink", "title_link", "web_link", "externalurl", "generatorurl", "weburl",
})  # fmt: skip
_OPENED_KEY = re.compile(
    r"(?i)^(?:html|web|permalink|target|hosted|browser|details|hosted_invoice|incident|dashboard|pull_request|build|ssl|deploy_ssl"
    r"|admin|issue|ticket|alert|conversation|receipt|invoice|card|deal|order|panel|silence|external|job|run|log)[_-]?(?:url|link)$"
)
_LINK_HOLDERS = frozenset({"links", "_links"})
_LINK_NAMES = ("html", "web", "self", "conversation_web")
_PROGRAM_URL = re.compile(
    r"(?i)^https?://(?:api|hooks|avatars|secure\.gravatar|cdn|static)\b[.-]|/(?:api|rest)/|\{|\.(?:png|jpe?g|gif|svg|ico)(?:\?|$)"
)
_RICH_TEXT = ('{"type":"doc"', "<!DOCTYPE", "<html", "data:")
_FOREIGN_ID_KEY = re.compile(r"(?:[a-z0-9]_[iI][dD]s?|[a-z0-9]I[dD]s?|^id[A-Z]\w+)$")
_FOREIGN_ID = re.compile(r"^[0-9a-fA-F-]{24,36}$")


class _Walk:
    """One pass over one body."""

    __slots__ = ("dropped", "holders", "seen")

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.holders = 0
        self.seen: set[tuple[Any, ...]] = set()

    def value(self, at: Any, depth: int, *, is_mentioned: bool = False) -> Any:
        """`at` pruned, or None where nothing is left of it."""
        kind = at.__class__
        if kind is str:
            return self.text(at)
        if kind is dict:
            return self.mapping(at, depth, is_mentioned=is_mentioned)
        if kind is list:
            return self.items(at, depth, is_mentioned=is_mentioned)
        return at

    def text(self, at: str) -> str | None:
        if not at.strip():
            self.dropped["empty"] += 1
            return None
        if len(at) <= MAX_TEXT_CHARS and not at.startswith(_RICH_TEXT):
            return at
        if found := reference(at):
            self.dropped["files"] += 1
            return found
        if at.startswith(_RICH_TEXT):
            self.dropped["opaque"] += 1
            return None
        self.dropped["long text"] += 1
        return shortened(at, MAX_TEXT_CHARS)

    def items(self, at: list[Any], depth: int, *, is_mentioned: bool) -> list[Any] | None:
        found: list[Any] = []
        for item in at[:MAX_ITEMS]:
            left = self.value(item, depth + 1, is_mentioned=is_mentioned)
            if left is not None and (not found or left != found[-1]):
                found.append(left)
        if len(at) > MAX_ITEMS:
            self.dropped["list items"] += len(at) - MAX_ITEMS
            found.append(f"… {len(at) - MAX_ITEMS} more")
        return found or None

    def mapping(self, at: dict[str, Any], depth: int, *, is_mentioned: bool) -> dict[str, Any] | None:
        if depth >= MAX_DEPTH:
            self.dropped["too deep"] += 1
            return None
        if depth > 0 and is_mentioned:
            return self.mention(at, depth)
        if depth > 0 and self.is_repeated(at):
            self.dropped["repeated"] += 1
            return self.mention(at, depth)
        found: dict[str, Any] = {}
        has_id = "id" in at  # then `stateId` and the like name other things
        for count, (key, item) in enumerate(at.items()):
            if count >= MAX_FIELDS:
                self.dropped["fields"] += len(at) - MAX_FIELDS
                found["…"] = f"{len(at) - MAX_FIELDS} more fields"
                break
            if has_id and _FOREIGN_ID_KEY.search(key) and is_foreign_id(item):
                self.dropped["foreign ids"] += 1
                continue
            left = self.member(key, item, depth)
            if left is not None:
                found[key] = left
        return found or None

    def member(self, key: str, item: Any, depth: int) -> Any:
        lower = key.lower()
        if item is None or item in ("", [], {}):
            self.dropped["empty"] += 1
            return None
        if lower in _LINK_HOLDERS:
            return self.links(item, depth)
        is_the_news = lower == "installation" and item.__class__ is dict and "account" in item  # elsewhere it is an id
        if (lower in NOISE or _NOISE_KEY.search(key)) and not is_the_news:
            self.dropped["machinery"] += 1
            return None
        if item.__class__ is str:
            if self.is_dropped_text(lower, key, item, depth):
                return None
        elif (item is False or item == 0) and depth > 1:
            self.dropped["defaults"] += 1
            return None
        return self.value(item, depth + 1, is_mentioned=lower in MENTIONED)

    def links(self, item: Any, depth: int) -> Any:
        """Of a holder of links, the one that people open, where it stood: `{"html": {"href": …}}`."""
        self.dropped["links"] += len(item) if item.__class__ in {dict, list} else 1
        if item.__class__ is not dict or depth > 3 or self.holders >= MAX_LINK_HOLDERS:  # noqa: PLR2004 - deeper is not the news
            return None
        for name in _LINK_NAMES:
            found = item.get(name)
            inner = found[0] if found.__class__ is list and found else found
            href = inner.get("href") if inner.__class__ is dict else inner
            if href.__class__ is str and href.startswith("http") and ("link", href) not in self.seen:
                self.seen.add(("link", href))
                return {
                    name: found if found.__class__ is str else [{"href": href}] if found.__class__ is list else {"href": href}
                }
        return None

    def is_dropped_text(self, lower: str, key: str, item: str, depth: int) -> bool:
        if item.startswith(("http://", "https://")):
            is_opened = depth <= 3 and (lower in _OPENED or _OPENED_KEY.match(key) is not None)  # noqa: PLR2004
            is_news = is_opened and not _PROGRAM_URL.search(item) and ("link", item) not in self.seen
            self.seen.add(("link", item))
            is_link = _LINK_KEY.search(key) is not None or _PROGRAM_URL.search(item) is not None
            if not is_news and (is_link or len(item) > LONG_LINK_CHARS):
                self.dropped["links"] += 1
                return True
            return False
        return False

    def mention(self, at: dict[str, Any], depth: int) -> dict[str, Any] | None:
        """Only what names a thing."""
        found: dict[str, Any] = {}
        for key, item in at.items():
            lower = key.lower()
            kind = item.__class__
            if kind is dict and lower in INSIDE_MENTION and depth < MAX_DEPTH:
                inner = self.mention(item, depth + 1)
                if inner:
                    found[key] = inner
            elif lower in IDENTITY and (kind is int or kind is bool or (kind is str and item and item not in found.values())):
                if kind is str and (len(item) > MENTION_TEXT_CHARS or self.is_dropped_text(lower, key, item, depth)):
                    continue
                found[key] = item
        if not found:
            return self.small(at, depth)
        if len(found) > 1 and not NAMES.isdisjoint(found):
            for name in ("id", "type"):
                found.pop(name, None)
        self.dropped["mentioned"] += len(at) - len(found)
        return found

    def small(self, at: dict[str, Any], depth: int) -> dict[str, Any] | None:
        """A mentioned thing without a usual name: its plain fields."""
        found = {}
        for key, item in at.items():
            left = self.member(key, item, depth + 1) if item.__class__ is not list else None
            if left is not None:
                found[key] = left
        return found or None

    def is_repeated(self, at: dict[str, Any]) -> bool:
        """Whether a large thing with the same id was told already in this body."""
        identity = at.get("id") or at.get("node_id") or at.get("full_name")
        if identity is None or identity.__class__ not in {str, int} or len(at) < 8:  # noqa: PLR2004
            return False
        mark = ("thing", str(identity), len(at))
        if mark in self.seen:
            return True
        self.seen.add(mark)
        return False


def pruned(data: Any) -> tuple[Any, dict[str, int]]:
    """The generic view of `data`, and how many fields of which kind it leaves out.

    It keeps the structure: what is left stands where it stood, so a JSON pointer into the body is one into the view.
    """
    walk = _Walk()
    return walk.value(data, 0), dict(walk.dropped)


def restored(value: Any, data: Any, required: Collection[Path]) -> Any:
    """The generic view `value` of `data` with what is required as it was; a list that it stands in comes back whole."""
    for path in sorted(required, key=str):
        wanted = at(data, path)
        if wanted is None or at(value, path) == wanted:
            continue
        inner, depth = data, 0
        while depth < len(path) and inner.__class__ is dict:
            inner, depth = inner[str(path[depth])], depth + 1
        if not depth:
            return data
        value = value if value.__class__ is dict else {}
        holder = value
        for step in path[: depth - 1]:
            if holder.get(str(step)).__class__ is not dict:
                holder[str(step)] = {}
            holder = holder[str(step)]
        holder[str(path[depth - 1])] = inner
    return value


def is_foreign_id(item: Any) -> bool:
    """Whether a value beside the thing's own id looks like the id of another thing."""
    if item.__class__ is list:
        return all(is_foreign_id(each) for each in item)
    return item.__class__ is int or (item.__class__ is str and _FOREIGN_ID.match(item) is not None)


def shortened(text: str, chars: int) -> str:
    """The first `chars` characters, and a mark that says how many more there are."""
    if len(text) <= chars:
        return text
    return f"{text[:chars]}… [+{len(text) - chars} characters]"
