"""Random faults amid transfers on a real cluster, and what must hold after each of them.

    python benchmarks/chaos_transfers.py [--runs N] [--seed S] [--only FAULT] [--json FILE]

Six hosts (network namespaces, links of 100 Mbit/s), one cluster across them, castray's command line
in a process of its own for every run: a file or a tree from a host, or from castray's machine, to
four hosts, some of which have other content there already. At a random moment something happens:
an agent, the coordinator, castray or a raylet is killed with SIGKILL, an agent is stopped, a link
is cut, a disk is full, a byte is flipped on the wire (with a right checksum), the source is
truncated or changed. After each run it is looked at whether

- every target has a verdict that is true: the whole right content where it is verified, what was
  there before (for a tree into a folder that was there: old or new, file by file) where not;
- nothing stands under its real name that is not whole and right;
- every target was served that the fault left alive, and castray came to an end by itself;
- nothing was left behind: temporary names, processes, jobs and open files, once the idle time of
  the agents has passed (looked at when all runs are through).

Prints a table by fault, and exits 1 where anything was violated. Needs root on Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from chaos.checks import SERVED, Place, left_behind, told_of, violations_of
from chaos.content import make_file, make_old, make_tree, snapshot
from chaos.faults import FAULTS, Fault, Happening
from chaos.scene import DATA_PORTS, IDLE_SECONDS, RUN_SECONDS, Scene
from chaos.watching import Watch
from chaos.wire_tap import WireTap
from lab import hosts
from lab.ending import end_on_signals
from lab.hosts import Host
from lab.processes import descriptors

HOSTS = 6
TARGETS = 4
RATE_BITS_PER_SECOND = 100e6
LATE_SECONDS = 40.0
"""After the idle time, until all must be gone: Ray takes its time to end actors and forget jobs."""
MORE_DESCRIPTORS = 24


@dataclass
class Outcome:
    """How a run went."""

    run: int
    fault: str
    kind: str
    source: str
    victim: str | None
    happened: bool
    seconds: float
    verdicts: dict[str, str | None] = field(default_factory=dict)
    reasons: dict[str, str | None] = field(default_factory=dict)
    served: int = 0
    wanted: int = 0
    pause_seconds: float = 0.0
    attempts: int = 0
    violations: list[str] = field(default_factory=list)


class Runs:
    """Carries out runs on one scene.

    Args:
        scene: Where.
        seed: Of everything that is random.
    """

    def __init__(self, scene: Scene, seed: int) -> None:
        self._scene = scene
        self._seed = seed
        self._children: set[tuple[int, float]] = set()
        self._open: dict[int, list[int]] = defaultdict(list)

    def one(self, number: int, fault_name: str) -> Outcome:
        """One run, with everything put back in order after it."""
        chance = random.Random(f"{self._seed} {number} {fault_name}")
        fault = FAULTS[fault_name]
        ids = self._scene.node_ids()
        source_host, targets = choose_hosts(self._scene.hosts, fault, chance)
        folder = self._scene.folder / f"run-{number}"
        folder.mkdir()
        kind = chance.choice(("file", "tree"))
        source = folder / f"source {number}{'.bin' if kind == 'file' else ''}"
        (make_file if kind == "file" else make_tree)(source, chance)
        on_small_disk = chance.choice(targets) if fault_name == "full disk" else None
        places = [
            self._place(folder, source, host, chance, is_small=host is on_small_disk)
            for host in targets
        ]
        address = str(source) if source_host is None else f"chaos/{ids[source_host.name]}:{source}"
        there = [f"chaos/{ids[place.host]}:{place.path.parent}/" for place in places]
        words = [address, there[0], *(word for each in there[1:] for word in ("--to", each))]
        relays = self._relays(words, targets, ids)
        victim = choose_victim(fault, source_host, targets, relays, on_small_disk, chance)
        outcome = Outcome(
            run=number,
            fault=fault_name,
            kind=kind,
            source=source_host.name if source_host is not None else "local",
            victim=victim.name if victim is not None else None,
            happened=False,
            seconds=0.0,
        )
        versions = [snapshot(source)]
        with contextlib.ExitStack() as stack:
            tap = None
            if fault_name == "flipped byte":
                assert victim is not None
                token = self._scene.lab.token
                tap = stack.enter_context(WireTap(victim, f"cb{token}", token, DATA_PORTS))
            clock = time.monotonic()
            castray = self._scene.castray("cp", *words, output=folder / "castray")
            stack.callback(end, castray)
            watch = stack.enter_context(Watch(targets, castray))
            happening = Happening(
                scene=self._scene,
                chance=chance,
                source=source_host,
                source_path=source,
                targets=targets,
                relays=relays,
                castray=castray.pid,
                tap=tap,
                victim=victim,
            )
            flowing = wait_for_moment(watch, castray, chance, size_of(source) * len(targets))
            struck_at = time.monotonic()
            if castray.poll() is None:
                fault.strike(happening)
            outcome.happened = happening.happened
            try:
                castray.wait(RUN_SECONDS)
            except subprocess.TimeoutExpired:
                outcome.violations.append(f"castray did not end within {RUN_SECONDS:g} s")
            outcome.seconds = time.monotonic() - clock
            for undo in reversed(happening.undo):
                undo()
            told = self._told(folder, castray, fault_name, happening.happened, outcome)
            versions.append(snapshot(source))
        self._children |= watch.children
        self._judge(outcome, fault, places, versions, told, flowing)
        served = [
            place.host
            for place in places
            if outcome.verdicts[place.host] in SERVED
            # How long a victim itself stood still says how long it was hit.
            and (fault.spares_victim or place.host != outcome.victim)
        ]
        outcome.pause_seconds = watch.longest_pause(served, struck_at)
        self._clear(source, places)
        self._count_descriptors()
        return outcome

    # --- before -------------------------------------------------------------------------------

    def _place(
        self, folder: Path, source: Path, host: Host, chance: random.Random, *, is_small: bool
    ) -> Place:
        """A target's place, with something there before in some of the runs."""
        base = self._scene.small_disk / folder.name if is_small else folder
        path = base / f"at {host.name}" / source.name
        if chance.random() < 0.5:
            path.parent.mkdir(parents=True)
            if chance.random() < 0.6:
                make_old(source, path, chance)
        return Place(host.name, path, snapshot(path))

    def _relays(self, words: list[str], targets: Sequence[Host], ids: dict[str, str]) -> list[Host]:
        """The targets that are to feed others, by the plan that castray tells."""
        plan = self._scene.answer("cp", "--dry-run", *words)
        feeders = {line.partition(" → ")[0].rpartition("/")[2] for line in plan.get("route", [])}
        return [
            host
            for host in targets
            if any(
                feeder == host.address
                or (feeder == "head" and host is self._scene.hosts[0])
                or (feeder != "" and ids[host.name].startswith(feeder))
                for feeder in feeders
            )
        ]

    # --- after --------------------------------------------------------------------------------

    def _told(
        self,
        folder: Path,
        castray: subprocess.Popen[bytes],
        fault: str,
        happened: bool,
        outcome: Outcome,
    ) -> dict[str, Any]:
        """What castray says of the transfer: by its own output, or by the next one's."""
        words = (folder / "castray.err").read_text(errors="replace")
        if "Traceback" in words:
            outcome.violations.append(f"castray failed: {words[-600:]}")
        if fault != "kill -9 castray" or not happened:
            if castray.poll() not in (0, 1, 3):
                outcome.violations.append(f"exit code {castray.poll()}: {words[-300:]}")
            try:
                told: dict[str, Any] = json.loads((folder / "castray.out").read_text())
            except ValueError:
                outcome.violations.append(f"no answer: {words[-300:]}")
                return {}
            if "error" in told and "targets" not in told:
                outcome.violations.append(f"refused: {told['error']}")
            return told
        deadline = time.monotonic() + RUN_SECONDS
        while True:
            listed = self._scene.answer("transfers", "--source", folder.name)["transfers"]
            if not listed:
                return {}
            if listed[0]["state"] in ("done", "partial", "failed", "cancelled"):
                return dict(listed[0])
            if time.monotonic() > deadline:
                outcome.violations.append(f"still {listed[0]['state']} for the next castray")
                return dict(listed[0])
            time.sleep(1.0)

    def _judge(
        self,
        outcome: Outcome,
        fault: Fault,
        places: Sequence[Place],
        versions: list[dict[str, str]],
        told: dict[str, Any],
        flowing: bool,
    ) -> None:
        for place in places:
            verdict, digest, reason = told_of(told, place.path)
            if not told and outcome.fault == "kill -9 castray":
                verdict, reason = "not begun", "castray was killed before"
            outcome.verdicts[place.host], outcome.reasons[place.host] = verdict, reason
            outcome.attempts = max(
                [outcome.attempts, *(t.get("attempts") or 0 for t in told.get("targets", []))]
            )
            wrong = violations_of(place, verdict, digest, versions)
            if self._must_be_served(outcome, fault, place, flowing):
                outcome.wanted += 1
                if verdict not in SERVED:
                    wrong.append(f"survived and was not served: {verdict}: {reason}")
            outcome.served += verdict in SERVED
            outcome.violations += [f"{place.host}: {each}" for each in wrong]

    def _must_be_served(self, outcome: Outcome, fault: Fault, place: Place, flowing: bool) -> bool:
        if not outcome.happened:
            return True
        if outcome.fault == "kill -9 castray":
            return flowing and outcome.source != "local"
        if outcome.victim == place.host:
            return fault.spares_victim
        return fault.spares_all

    def _clear(self, source: Path, places: Sequence[Place]) -> None:
        """Removes what is under real names; what else there is has to go by itself."""
        for path in (source, *(place.path for place in places)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _count_descriptors(self) -> None:
        for process in self._scene.all_processes():
            with contextlib.suppress(OSError):
                self._open[process.pid].append(descriptors(process.pid))

    def left(self) -> list[str]:
        """What is still there when everything has to be gone; waits for that."""
        wrong = [
            f"agent {pid}: from {counts[0]} to {counts[-1]} descriptors in {len(counts)} runs"
            for pid, counts in self._open.items()
            if min(counts[-3:]) - min(counts[:3]) > MORE_DESCRIPTORS
        ]
        deadline = time.monotonic() + IDLE_SECONDS + LATE_SECONDS
        while time.monotonic() < deadline and self._scene.all_processes():
            time.sleep(0.5)
        wrong += [f"process: {process}" for process in self._scene.all_processes()]
        wrong += [f"process of castray's: {pid}" for pid in sorted(self._living_children())]
        wrong += [f"name: {name}" for name in left_behind(self._scene.folder)]
        # The next castray removes the jobs' records of those that were killed.
        self._scene.answer("nodes", "chaos")
        self._scene.answer("transfers", "--limit", "1")
        while time.monotonic() < deadline + LATE_SECONDS and self._scene.jobs():
            time.sleep(0.5)
        wrong += [f"job: {job}" for job in self._scene.jobs()]
        return wrong

    def _living_children(self) -> list[int]:
        alive = []
        for pid, started in self._children:
            with contextlib.suppress(psutil.Error):
                if psutil.Process(pid).create_time() == started:
                    alive.append(pid)
        return alive


def choose_hosts(
    places: Sequence[Host], fault: Fault, chance: random.Random
) -> tuple[Host | None, list[Host]]:
    """A source and targets; None is castray's machine."""
    source: Host | None
    if fault.source_is_node:
        source = chance.choice(places[1:])
    else:
        source = chance.choice(places) if chance.random() < 0.8 else None
    left = [host for host in places if host is not source]
    targets = chance.sample(left, TARGETS)
    return source, targets


def choose_victim(
    fault: Fault,
    source: Host | None,
    targets: list[Host],
    relays: list[Host],
    on_small_disk: Host | None,
    chance: random.Random,
) -> Host | None:
    """Whom a fault hits. The head's host is spared: without it there is no cluster."""
    if on_small_disk is not None:
        return on_small_disk
    by_role: dict[str, Sequence[Host | None]] = {
        "none": [],
        "source": [source],
        "relay": relays or targets,
        "leaf": [host for host in targets if host not in relays] or targets,
        "target": targets,
    }
    breaks_node = fault in (FAULTS["kill -9 target raylet"], FAULTS["cut link of target"])
    candidates = by_role[fault.hits]
    hit = [host for host in candidates if not breaks_node or host is None or host.name != "h1"]
    return chance.choice(hit) if hit else None


def wait_for_moment(
    watch: Watch, castray: subprocess.Popen[bytes], chance: random.Random, total_bytes: int
) -> bool:
    """Waits for a random moment of a transfer; whether bytes flow by then."""
    if chance.random() < 0.1:
        with contextlib.suppress(subprocess.TimeoutExpired):
            castray.wait(chance.uniform(0.0, 1.0))
        return False
    wanted = chance.uniform(0.01, 0.85) * total_bytes
    while castray.poll() is None and sum(watch.bytes.values()) < wanted:
        time.sleep(0.005)
    return castray.poll() is None


def size_of(path: Path) -> int:
    """The size of a file, or of all files of a tree."""
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that has not ended."""
    if process.poll() is None:
        process.kill()
        process.wait()


def print_table(outcomes: Sequence[Outcome]) -> None:
    """One line a fault."""
    print(
        f"\n{'fault':<26}{'runs':>5}{'struck':>7}{'served':>10}{'due':>10}"
        f"{'pause s':>9}{'time s':>8}{'wrong':>6}  verdicts"
    )
    by_fault: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_fault[outcome.fault].append(outcome)
    for fault in FAULTS:
        if rows := by_fault.get(fault):
            verdicts = Counter(str(each) for row in rows for each in row.verdicts.values())
            told = ", ".join(f"{count} {name}" for name, count in verdicts.most_common())
            print(
                f"{fault:<26}{len(rows):>5}{sum(row.happened for row in rows):>7}"
                f"{sum(row.served for row in rows):>6}/{TARGETS * len(rows):<3}"
                f"{sum(row.wanted for row in rows):>10}"
                f"{max(row.pause_seconds for row in rows):>9.1f}"
                f"{max(row.seconds for row in rows):>8.1f}"
                f"{sum(bool(row.violations) for row in rows):>6}  {told}"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=list(FAULTS), help="repeatable")
    parser.add_argument("--minutes", type=float, help="begin no run after this time")
    parser.add_argument("--json", type=Path, help="write every run there")
    arguments = parser.parse_args()
    reason = hosts.why_not()
    if reason is not None:
        print(f"skipped: {reason}")
        return 0
    end_on_signals()
    chance = random.Random(arguments.seed)
    names: list[str] = []
    kinds: list[str] = arguments.only or list(FAULTS)
    while len(names) < arguments.runs:  # every fault as often as every other
        names += chance.sample(kinds, len(kinds))
    outcomes: list[Outcome] = []
    broken = ""
    started = time.monotonic()
    with Scene(HOSTS, RATE_BITS_PER_SECOND) as scene:
        runs = Runs(scene, arguments.seed)
        for number, name in enumerate(names[: arguments.runs]):
            if arguments.minutes and time.monotonic() - started > arguments.minutes * 60:
                break
            try:
                outcome = runs.one(number, name)
            except RuntimeError as error:
                # The scene itself broke, on a machine that is too busy for Ray to start a node.
                broken = f"the scene broke in run {number}: {error}"
                print(broken[:1000], flush=True)
                break
            outcomes.append(outcome)
            print(
                f"{number:>4} {name:<26}{outcome.kind:<5}{outcome.source:>6} "
                f"{outcome.victim or '-':<4}{'' if outcome.happened else 'late ':<5}"
                f"{outcome.seconds:6.1f} s  served {outcome.served}/{TARGETS}"
                f"  pause {outcome.pause_seconds:4.1f} s",
                flush=True,
            )
            for violation in outcome.violations:
                print(f"       VIOLATION {violation}", flush=True)
            if arguments.json is not None:
                write(arguments, outcomes, [])
        left = [broken] if broken else runs.left()
    print_table(outcomes)
    for each in left:
        print(f"LEFT BEHIND {each}")
    violated = sum(bool(outcome.violations) for outcome in outcomes)
    print(f"{len(outcomes)} runs, {violated} with violations, {len(left)} things left behind")
    if arguments.json is not None:
        write(arguments, outcomes, left)
    return 1 if violated or left else 0


def write(arguments: argparse.Namespace, outcomes: Sequence[Outcome], left: list[str]) -> None:
    """All runs as JSON."""
    document = {
        "seed": arguments.seed,
        "cores": os.cpu_count(),
        "runs": [asdict(outcome) for outcome in outcomes],
        "left_behind": left,
    }
    arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
