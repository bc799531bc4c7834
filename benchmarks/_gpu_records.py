"""The file in which the measuring process of gpu_check.py tells what it has done.

A line of JSON each: the plan, every job when it begins and when it is done. So a process that dies
or is stopped has told all but its last job, and the next one begins after that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from _gpu_report import Report

MOST_SAID = 300  # characters of what a dead process said last


def plan(jobs: int, sizes: Report) -> Report:
    """What is going to be done."""
    return {"plan": jobs, "sizes": sizes}


def beginning(job: str, identity: Report) -> Report:
    """A job begins; `identity` is what its row will say even if it kills the process."""
    return {"begin": job, "row": identity}


def outcome(job: str, seconds: float, result: Report) -> Report:
    """A job is done."""
    return {"job": job, "seconds": round(seconds, 3), "result": result}


def append(file: Path, record: Report) -> None:
    """Write a record, on a line of its own even after half a line."""
    with file.open("a") as lines:
        lines.write("\n" + json.dumps(record) + "\n")


def read(file: Path) -> list[Report]:
    """The records of a file; a process that was killed may have left half a line."""
    records = []
    for line in file.read_text().splitlines() if file.exists() else []:
        with suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def planned(records: Sequence[Report]) -> Report:
    """The plan, of no jobs where there is none."""
    return next((record for record in records if "plan" in record), plan(0, {}))


def finished(records: Sequence[Report]) -> list[Report]:
    """The jobs that are done."""
    return [record for record in records if "job" in record]


def bury(file: Path, why: str) -> bool:
    """Record the job in which a process died; returns whether it was in one."""
    records = read(file)
    begun = [record for record in records if "begin" in record]
    if len(begun) <= len(finished(records)):
        return False
    result = begun[-1]["row"] | {"error": why[:MOST_SAID]}
    append(file, outcome(begun[-1]["begin"], 0.0, result))
    return True


def uncapturable(records: Sequence[Report]) -> list[str]:
    """The "op/rival" that could not be captured in a graph, each once."""
    return list(
        dict.fromkeys(
            f"{record['result']['op']}/{rival}"
            for record in finished(records)
            if record["job"] == "row"
            for rival, part in record["result"].items()
            if isinstance(part, dict) and "not_captured" in part
        )
    )
