"""Runs the benchmarks: ``python -m benchmarks [--quick] [--only STEM] [--rounds N] [--out FOLDER]``."""

import argparse
import importlib
import sys
import time
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import ROOT, Options, Table, has, machine, write
from handgrad.cli.streams import standard_streams

# Memory first, while this process has not imported torch: a child's peak counts its parent's size at the start.
STEMS = ("memory", "startup", "functions", "training", "path", "probe", "estimator", "processes", "stream", "growth")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Peers and this project side by side.")
    parser.add_argument("--quick", action="store_true", help="tiny, in seconds: shows that it runs, not how fast")
    parser.add_argument("--only", choices=STEMS, action="append", help="this one only; may be given several times")
    parser.add_argument("--rounds", type=int, help="recorded rounds (default: 5, quick: 1)")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "bench", help="folder of the tables")
    arguments = parser.parse_args()
    rounds = arguments.rounds if arguments.rounds is not None else 1 if arguments.quick else 5
    if rounds < 1:
        parser.error(f"--rounds {rounds}: accepted is a whole number >= 1")
    options = Options(quick=arguments.quick, rounds=rounds, warmup=0 if arguments.quick else 1)
    harness.OWN_PROCESSES = not arguments.quick
    facts = machine()
    for stem in STEMS:
        if arguments.only is None or stem in arguments.only:
            start = time.perf_counter()
            print(f"{stem} ...", file=sys.stderr, flush=True)
            tables: dict[str, Table] = {}
            module = importlib.import_module(f"benchmarks.bench_{stem}")
            for table in module.run(options):
                tables[table.name] = table  # a long benchmark yields it again with more rows
                text = write(stem, [*tables.values(), facts], arguments.out)
            if hasattr(module, "picture") and has("matplotlib"):
                module.picture(tables, arguments.out / f"{stem}.png")
            print(f"\n{text}")
            print(f"{stem}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    with standard_streams():
        main()
