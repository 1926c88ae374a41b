"""The README's five-minute path, word by word: the blocks are taken from the page and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.ports import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(name: str) -> str:
    found = re.search(rf"<!-- five-minutes: {re.escape(name)} -->\n\s*```\w+\n(.*?)\n\s*```", README, re.DOTALL)
    assert found, f"the README has no block {name!r}"
    lines = found[1].splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[indent:] for line in lines) + "\n"


def with_ports(text: str, ports: dict[str, int]) -> str:
    for port, replacement in ports.items():
        text = text.replace(port, str(replacement))
    return text


@pytest.mark.timeout(90)
def test_the_five_minute_path_wakes_the_agent(tmp_path: Path):
    ports = {"8080": free_port(), "9000": free_port()}
    api_port = free_port()
    (tmp_path / "nightbell.yaml").write_text(with_ports(block("nightbell.yaml"), ports))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    env = {k: v for k, v in os.environ.items() if not k.startswith("NIGHTBELL_")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NIGHTBELL_INGEST_BIND": f"127.0.0.1:{ports['8080']}",
        "NIGHTBELL_API_BIND": f"127.0.0.1:{api_port}",
    }
    wait = f"""
for n in $(seq 300); do
  if python - <<'EOF' 2>/dev/null
import urllib.request; urllib.request.urlopen('http://127.0.0.1:{api_port}/readyz', timeout=1); urllib.request.urlopen('http://127.0.0.1:{ports["9000"]}/ledger', timeout=1)
EOF
  then break; fi; sleep 0.1
done
"""
    pause = "sleep 1\n"
    ring = with_ports(block("ring"), ports).replace("nightbell events list\n", pause + "nightbell events list\n", 1)
    script = "set -e\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n" + with_ports(block("start"), ports) + wait + ring

    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=80)

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Checkout charges twice" in (tmp_path / "agent.jsonl").read_text()
    assert "github.issues.opened" in done.stdout
    assert "triage" in done.stdout


def test_the_commands_that_the_readme_promises_exist():
    makefile = (ROOT / "Makefile").read_text()

    for verb in re.findall(r"^make ([a-z-]+)", README, re.MULTILINE):
        assert re.search(rf"^{verb}:", makefile, re.MULTILINE), verb


def test_every_file_that_the_readme_links_exists():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
