"""Files in bodies are told by type and size, never by their bytes."""

from __future__ import annotations

import base64
import json

import orjson
import pytest

from curator.attachments import reference
from curator.compose import Materials, compose
from curator.contract import contract_of
from curator.curate import curate
from schemas.config import ContextSpec

CONTENT = base64.b64encode(bytes(range(256)) * 8).decode()
MAIL = "\r\n".join(CONTENT[at : at + 76] for at in range(0, len(CONTENT), 76))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CONTENT, "[2048 bytes, by reference]"),
        (f"data:image/png;base64,{CONTENT}", "[image/png, 2048 bytes, by reference]"),
        (f"data:text/plain;charset=utf-8;base64,{CONTENT}", "[text/plain, 2048 bytes, by reference]"),
        (MAIL, "[2048 bytes, by reference]"),
        ("a word and another one " * 40, None),
        ("one-word-a-line\n" * 60, None),
        (CONTENT[:599], None),
        ("https://example.com/" + "a/b?c=d" * 100, None),
    ],
)
def test_a_file_is_told_by_its_type_and_its_size(text, told):
    assert reference(text) == told


@pytest.mark.parametrize("view", [None, "data", "{files: data.files}"])
def test_no_view_tells_the_bytes_of_a_file(event, view):
    data = {"subject": "Invoice", "files": [{"name": "invoice.pdf", "type": "application/pdf", "content": CONTENT}]}

    found = curate(event(data), data, view=view, max_tokens=None)

    [file] = orjson.loads(found.context)["files"]
    assert file == {"name": "invoice.pdf", "type": "application/pdf", "content": "[2048 bytes, by reference]"}


def test_a_file_that_is_required_is_told_whole(event):
    data = {"files": [{"content": CONTENT}], "other": CONTENT}
    contract = contract_of(ContextSpec(view="data", required=["files.0.content"]))

    found = compose(contract, event(data), data, Materials(), invocation_id="inv_1", fence_secret=b"k" * 32)

    assert json.loads(found.context) == {"files": [{"content": CONTENT}], "other": "[2048 bytes, by reference]"}
