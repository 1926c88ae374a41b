"""An agent behind a firewall, in 15 lines: it fetches its work (`protocol: pull`), keeps checkpoints, and reports.

NIGHTBELL_API=http://127.0.0.1:8081 NIGHTBELL_AGENT_KEY=nbk_… python -m examples.fetching_agent
"""

import os
import time

from examples.agent_kit import Run, fetches

API, KEY = os.environ["NIGHTBELL_API"], os.environ["NIGHTBELL_AGENT_KEY"]


@fetches(API, agent=os.environ.get("NIGHTBELL_AGENT", "fetcher"), key=KEY, worker=f"pid {os.getpid()}")
def work(run: Run) -> dict[str, object]:
    """Five steps; a worker that dies in between is followed by one that goes on where it was."""
    steps = list(run.checkpoint or [])
    for step in range(len(steps) + 1, 6):
        run.status(tried=f"step {step - 1}", next=f"step {step}")
        time.sleep(float(os.environ.get("STEP_S", "1")))
        steps.append(f"{step} by attempt {run.attempt}")
        run.keep(steps)
    return {"steps": steps}


if __name__ == "__main__":
    work()
