"""How many tokens a text is, counted offline."""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import TYPE_CHECKING

from curator.ports import TokenCounter

if TYPE_CHECKING:
    from bpe_openai._bindings import PyTokenizer

DEFAULT_ENCODING = "o200k_base"
# Vocabularies that are not public are counted in o200k and scaled.  Claude: a public older vocabulary takes 1.02 to 1.37 times
# as many tokens on JSON, so 1.4 keeps a budget a ceiling.
FACTORS: dict[str, float] = {"gpt": 1.0, "o1": 1.0, "o3": 1.0, "o4": 1.0, "openai": 1.0, "claude": 1.4, "anthropic": 1.4}
UNKNOWN_FACTOR = 1.4
MAX_FAMILY_CHARS = 32
_LETTERS = re.compile(r"[a-z]+")
# Bytes a token of the bodies that vendors send, the median of 488 real ones; of base64 and percent-coded forms it is under 2.
RAW_BYTES_PER_TOKEN = 3.26


class Bpe:
    """Exact counts of a public vocabulary that the `bpe-openai` wheel carries."""

    def __init__(self, encoding: str = DEFAULT_ENCODING) -> None:
        """Loads nothing yet: the vocabulary is read at the first count."""
        self.name = encoding
        self._tokenizer: PyTokenizer | None = None

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        found: int = self._loaded().count(text)
        return found

    def count_within(self, text: str, limit: int) -> int | None:
        """Tokens of `text`, or None where there are more than `limit`: cheaper than a full count of a long text."""
        found: int | None = self._loaded().count_till_limit(text, limit)
        return found

    def _loaded(self) -> PyTokenizer:
        if self._tokenizer is None:
            with warnings.catch_warnings():
                # The wheel reads its data through importlib.resources.open_binary, which Python deprecates.
                warnings.simplefilter("ignore", DeprecationWarning)
                # Its public face builds a table of all 200,000 tokens that only decoding needs; the binding does not.
                from bpe_openai._bindings import tokenizer_for_encoding

                self._tokenizer = tokenizer_for_encoding(self.name)
                self._tokenizer.count("")
        return self._tokenizer


class ThirdOfBytes:
    """An estimate for machines without the wheel: a third of the UTF-8 bytes, rounded up.  Base64 has more tokens than that."""

    name = "bytes/3"

    def count(self, text: str) -> int:
        """A third of the bytes."""
        return -(-len(text.encode(errors="replace")) // 3)

    def count_within(self, text: str, limit: int) -> int | None:
        """As `count`, None beyond `limit`."""
        found = self.count(text)
        return found if found <= limit else None


class Scaled:
    """Another counter's figure times a factor, rounded up: for a model family whose vocabulary is not public."""

    def __init__(self, inner: TokenCounter, factor: float) -> None:
        """`factor` is at least 1: an estimate below the truth would break the budget."""
        if factor < 1:
            raise ValueError("a factor below 1 would let a context grow beyond its budget")
        self.name = f"{inner.name}*{factor:g}"
        self._inner = inner
        self._factor = factor

    def count(self, text: str) -> int:
        """Scaled tokens."""
        return _up(self._inner.count(text) * self._factor)

    def count_within(self, text: str, limit: int) -> int | None:
        """As `count`, None beyond `limit`."""
        found = self._inner.count_within(text, int(limit / self._factor))
        return None if found is None else _up(found * self._factor)


def _up(value: float) -> int:
    return -int(-value // 1)


@cache
def default_counter() -> TokenCounter:
    """o200k where the wheel is installed, else a third of the bytes."""
    counter = Bpe()
    try:
        counter.count("")
    except ImportError:
        return ThirdOfBytes()
    return counter


@cache
def counter_for(model: str | None, *, factor: float | None = None) -> TokenCounter:
    """The counter for a model's name (`gpt-5.1`, `claude-opus-4`); `factor` is one learnt from reported usage."""
    if not model:
        return default_counter()
    wanted = max(factor or default_factor(family_of(model)), 1.0)
    return default_counter() if wanted == 1.0 else Scaled(default_counter(), wanted)


def family_of(model: str) -> str:
    """The family that a model's name begins with: `claude` of `claude-opus-4`, `mistral` of `mistral-large`."""
    name = model.lower().rpartition("/")[2]
    known = next((prefix for prefix in FACTORS if name.startswith(prefix)), None)
    return known or (_LETTERS.match(name) or [""])[0][:MAX_FAMILY_CHARS] or "other"


def default_factor(family: str) -> float:
    """The factor of a family of which nothing was learnt."""
    return FACTORS.get(family, UNKNOWN_FACTOR)


def estimated(body_bytes: int, *, bytes_per_token: float = RAW_BYTES_PER_TOKEN) -> int:
    """About how many tokens a raw body of this length is; the same length always gives the same figure."""
    return int(body_bytes / bytes_per_token + 0.999)
