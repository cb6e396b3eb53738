"""Fuzzes the native codec against its Python twins, for FUZZ_SECONDS seconds (60), guided by the coverage of its C code.

What it learnt is kept in tests/fuzz/corpus, what broke something in tests/fuzz/crashes; neither belongs to the repository.
To see a crash again: tests/fuzz/run --again tests/fuzz/crashes/FILE --target TARGET

Exit status: 0 when nothing broke, 1 when something did, or when it cannot fuzz here.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import seeds
from tests.fuzz.workshop import BUILD, PYTHON, ROOT, TREE, CannotFuzz, environment, prepare

HERE = ROOT / "tests/fuzz"
SHARES = {"frames": 0.5, "upgrade": 0.2, "edits": 0.3}  # of the time
# Inputs go beyond the 65,536 bytes where the longest form of a length begins.
GUIDANCE = ("-max_len=80000", "-timeout=20", "-use_value_profile=1", "-print_final_stats=1")

COUNTERS = re.compile(r"\((\d+) inline 8-bit counters\)")
COVERAGE = re.compile(r"#\d+\s+(?:INITED|NEW|REDUCE|RELOAD|pulse|DONE)\s+cov: (\d+)")
EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


@dataclass(frozen=True)
class Outcome:
    """What one target did: coverage in edges of the C code, at the start from the corpus, and at the end."""

    status: int
    log: str
    counters: int
    first_coverage: int
    last_coverage: int
    executed: int

    @classmethod
    def of(cls, status: int, log: str) -> Outcome:
        counters, coverage, executed = (pattern.findall(log) for pattern in (COUNTERS, COVERAGE, EXECUTED))
        first, last = (int(coverage[0]), int(coverage[-1])) if coverage else (0, 0)
        return cls(status, log, sum(map(int, counters)), first, last, int(executed[-1]) if executed else 0)

    def to_text(self) -> str:
        return f"{self.executed:,} inputs tried; coverage {self.first_coverage} to {self.last_coverage} of {self.counters} edges"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tests/fuzz/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS", "60")))
    parser.add_argument("--target", choices=SHARES, action="append", help="only this target")
    parser.add_argument("--again", type=Path, metavar="FILE", help="run this one input, of --target")
    options = parser.parse_args(arguments)
    targets = {name: SHARES[name] for name in options.target or SHARES}
    try:
        prepare()
        if options.again:
            return max(again(name, options.again) for name in targets)
        whole = sum(targets.values())
        return max(fuzz(name, max(1, round(options.seconds * share / whole))) for name, share in targets.items())
    except CannotFuzz as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 1


def fuzz(target: str, seconds: int) -> int:
    """Fuzzes one target; 0 when nothing broke."""
    corpus, first, crashes = HERE / "corpus" / target, BUILD / "seeds" / target, HERE / "crashes"
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    given, before = seeds.write(first, target), len(list(corpus.iterdir()))
    print(f"{target}: {seconds} s, from {given} seeds and {before} kept inputs", flush=True)
    outcome = run(target, str(corpus), str(first), f"-max_total_time={seconds}", f"-artifact_prefix={crashes}/{target}-", *GUIDANCE)
    after = len(list(corpus.iterdir()))
    print(f"{target}: {outcome.to_text()}; {after - before} inputs learnt, {after} kept", flush=True)
    return judge(target, outcome, learnt_before=before > 0)


def judge(target: str, outcome: Outcome, *, learnt_before: bool) -> int:
    """0 when nothing broke and the fuzzer really was guided by the C code."""
    if outcome.status != 0:
        print(f"{outcome.log[-6000:]}\n{target}: BROKEN (status {outcome.status}); the input is in {HERE / 'crashes'}", file=sys.stderr)
        return 1
    guided = outcome.counters > 0 and outcome.last_coverage > 0 and outcome.executed > 0
    if not guided or not (learnt_before or outcome.last_coverage > outcome.first_coverage):
        print(f"{outcome.log[-2000:]}\n{target}: the fuzzer got no coverage from the codec, so it proved nothing", file=sys.stderr)
        return 1
    return 0


def again(target: str, path: Path) -> int:
    """Runs one input as the fuzzer would; 0 when nothing breaks."""
    outcome = run(target, str(path.resolve()))
    print(outcome.log)
    return 1 if outcome.status else 0


def run(target: str, *arguments: str) -> Outcome:
    command = [str(PYTHON), "-m", "tests.fuzz.target", target, *arguments]
    done = subprocess.run(
        command, cwd=TREE, env={**os.environ, **environment()}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )  # fmt: skip
    return Outcome.of(done.returncode, done.stdout.decode(errors="replace"))


if __name__ == "__main__":
    sys.exit(main())
