"""The command line: ``python -m bugbench bug=softmax_dim``, ``-m 'bug=glob(*)'``, ``suite=quick``."""

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
from bugbench import job, known_impact
from bugbench.catalogue import CHOICES, Catalogue, catalogue_of, search_path_of
from bugbench.catalogue.hydra_groups import check_arguments, register, settled
from bugbench.catalogue.launchers import ONE_BY_ONE, end_with_parent
from bugbench.image_files import ROOT_VARIABLE
from bugbench.isolation import LEVELS
from bugbench.judging import Judge
from bugbench.names import UnknownName, unknown
from bugbench.plugins import load_module
from bugbench.pools import isolation_notices, train_pool
from bugbench.report import terminal
from bugbench.report.sweep import Job, Leaderboard
from bugbench.runner import prepare
from bugbench.store import Store
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

INTERRUPTED = 128 + signal.SIGINT  # the exit status that shells give


def mapping(config: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """Return a config as plain Python values."""
    return dict(OmegaConf.to_container(config, resolve=resolve))  # type: ignore[arg-type]


def check_knob(name: str, value: Any, default: Any) -> None:
    """Check that a knob gets a value of its kind; raises UnknownName."""
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a text"}
    wanted = kinds[type(default)]
    if kinds.get(type(value)) != wanted:
        raise UnknownName(f"{name}={value}: the knob takes {wanted}, such as {default}")


def seeds_of(given: Any) -> list[int]:
    """Return the seeds that a list, or a number of seeds, stands for; raises UnknownName."""
    seeds = list(range(given)) if isinstance(given, int) else list(given) if isinstance(given, ListConfig) else []
    if not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UnknownName(f"seeds={given}: give a number of at least 1, or a list of different seeds such as [0,1,2]")
    return seeds


def check_amounts(config: DictConfig) -> None:
    """Check the numbers of workers, seconds and GiB; raises UnknownName."""
    if config.workers is not None and (type(config.workers) is not int or config.workers < 1):
        raise UnknownName(f"workers={config.workers}: give a whole number of at least 1, or null")
    for name, value in config.limits.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise UnknownName(f"limits.{name}={value}: give a number above 0")


def plan_of(config: DictConfig, catalogue: Catalogue) -> job.Plan:
    """Turn a composed config into a plan.

    Raises:
        UnknownName, CardError: a name or a card is wrong, or the card does not apply.
    """
    knobs = mapping(config.bug, resolve=False)
    name = knobs.pop("id")
    written = catalogue.cards[name]
    changed = {k: v for k, v in knobs.items() if v != written.get(k)}
    for knob, value in changed.items():
        check_knob(f"bug.{knob}", value, written[knob])
    card = catalogue.card(name, {**written, **knobs, "changed": changed})
    results = Path(config.results)
    own = config.controls if card.control else {}
    catalogue = catalogue.varied(**{kind: config.get(kind, {}).get("name") for kind in catalogue.variations})
    if config.workload.name in CHOICES:
        choice = own.get("workload") or config.workload.name
        if choice not in CHOICES:
            raise UnknownName(unknown("controls.workload", choice, CHOICES))
        workloads = known_impact.choose_workloads(card, choice, catalogue, known_impact.reference_impact(results))
    else:
        workloads = [catalogue.workload(config.workload.name).set_to(mapping(config.workload))]
        if reason := catalogue.why_not(card, workloads[0]):
            names = ", ".join(w.name for w in catalogue.applicable(card)) or "no workload"
            raise UnknownName(f"{reason}\n{card.id} applies to {names}")
    for workload in workloads:
        if workload.variations and hasattr(dataset := load_module(workload.dataset), "obtain"):
            dataset.obtain(config.download)
    judges = []
    chosen = mapping(config.detector) if "detector" in config else {}  # detector=[]: train, and judge another time
    for detector, knobs in chosen.items():
        declared = catalogue.detectors[detector]
        judges.append(Judge(detector, declared.file, declared.access, knobs or {}, declared.learns))
    seeds = seeds_of(config.seeds if own.get("seeds") is None else own["seeds"])
    check_amounts(config)
    if config.isolation not in ("auto", *LEVELS):
        raise UnknownName(unknown("isolation", config.isolation, ["auto", *LEVELS]))
    limits = config.limits
    return job.Plan(
        card,
        workloads,
        seeds,
        judges,
        results,
        config.workers,
        train_seconds=limits.train_seconds,
        judge_seconds=limits.judge_seconds,
        train_memory=int(limits.train_memory * 2**30),
        judge_memory=int(limits.judge_memory * 2**30),
        isolation=config.isolation,
    )


def run_and_show(
    plan: job.Plan, catalogue: Catalogue, sweep: bool, plot: bool, console: Console
) -> list[job.CaseResult]:
    """Run the plan; a sweep gets a line a case, a single job the whole story."""
    if sweep:
        results = job.run_job(plan, catalogue)
        terminal.show_case_lines(results, impact_of(plan, results), console)
    else:
        for workload in plan.workloads:
            terminal.show_injection(plan.card, prepare(plan.card, workload, plan.seeds[0]), console)
        with Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn(),
            console=console, transient=True,
        ) as progress:  # fmt: skip
            bars = {}

            def on_progress(name: str, state: dict) -> None:
                if name not in bars:
                    bars[name] = progress.add_task(f"training {name}", total=state["epochs"] or None, note="")
                share = state["epoch"] if state["epochs"] else None
                progress.update(bars[name], completed=share, note=f"step {state['step']}")

            progress.add_task(f"{plan.card.label}: train, then judge", total=None, note="")
            results = job.run_job(plan, catalogue, on_progress)
    store = Store(plan.results, train_pool(plan.workers, plan.train_memory))
    paths = []
    if plot:
        from bugbench.report import figure  # half a second for matplotlib, which a sweep does without

        for result in results:
            path = store.root / "cases" / result.record.folder / "curves.png"
            if result.outcome is not None:
                try:
                    paths.append(figure.save_curves(result, store, path))
                except OSError as error:  # a full disk: the verdicts count, the picture does not
                    console.print(f"[yellow]no curves:[/] {path}: {error}", highlight=False, soft_wrap=True)
    if not sweep:
        terminal.show_comparison(results, impact_of(plan, results), store, console)
        terminal.show_verdicts(results, console)
        for notice in isolation_notices():
            console.print(f"[yellow]bugbench:[/] {escape(notice)}", highlight=False, soft_wrap=True)
        for path in paths:
            terminal.show_path(path, console)
    return results


def impact_of(plan: job.Plan, results: list[job.CaseResult]) -> pd.DataFrame:
    """Return what the bug did on each workload, from longer measurements of the same programs where there are any."""
    return known_impact.measured_impact(plan.results, [r.record for r in results if r.record.skipped is None])


def workers_of(config: DictConfig) -> int:
    """Return the number of workers of each kind in this job: one core's worth where jobs run side by side."""
    hydra_config = HydraConfig.get()
    alone = hydra_config.mode != RunMode.MULTIRUN or hydra_config.runtime.choices["hydra/launcher"] == ONE_BY_ONE
    return (2 if alone else 1) if config.workers is None else config.workers


def run_one(config: DictConfig) -> None:
    """Run one job. In a sweep a job's failure is written down and the sweep goes on.

    Launchers hand this function to processes on other machines by its name, so it must not be decorated.
    """
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    if config.data_root:
        os.environ[ROOT_VARIABLE] = config.data_root
    if HydraConfig.get().runtime.choices["hydra/launcher"] == "joblib":
        end_with_parent()
    console = Console()
    started, workers = time.time(), workers_of(config)
    cases: list[str] = []
    problems: list[str] = []
    learners: dict[str, dict[str, Any]] = {}
    try:
        catalogue = catalogue_of(tuple(config.search_path))
        plan = replace(plan_of(config, catalogue), workers=workers, later=sweep)
        learners = {judge.name: dict(judge.knobs) for judge in plan.judges if judge.learns}
        plot = not sweep if config.plot is None else config.plot
        results = run_and_show(plan, catalogue, sweep, plot, console)
        cases = [result.record.folder for result in results if result.stored]
        problems = [result.problem for result in results if result.problem is not None]
        if problems and not sweep:
            for problem in problems:
                console.print(f"[red]bugbench:[/] {escape(problem)}", highlight=False, soft_wrap=True)
            sys.exit(1)
    except (LookupError, ValueError) as error:
        problems = [str(error)]
        if not sweep:
            console.print(f"[red]bugbench:[/] {error}", highlight=False, soft_wrap=True)
            sys.exit(2)
    except Exception as error:
        problems = [f"{config.bug.id} on {config.workload.name}: {type(error).__name__}: {error}"]
        if not sweep:
            raise
    if sweep:
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            Job(cases, problems, started, time.time(), workers, isolation_notices(), learners).write(folder)
        except OSError as error:  # the sweep goes on, and its end says that this job left nothing
            for problem in [*problems, f"{folder} cannot be written: {error}"]:
                console.print(f"[red]bugbench:[/] {escape(problem)}", highlight=False, soft_wrap=True)


def main() -> None:
    """Read the catalogue, register it with Hydra, check the names on the command line, and run."""
    arguments = sys.argv[1:]
    try:
        search_path = search_path_of(arguments)
        catalogue = catalogue_of(tuple(search_path))
        register(catalogue)
        check_arguments(arguments, catalogue)
        sys.argv[1:] = settled(arguments, search_path)
    except (LookupError, ValueError, OSError) as error:
        sys.exit(f"bugbench: {error}")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # or Hydra would end the process on an error, and a sweep get no tables
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as on Ctrl-C: joblib's processes would outlive us
    app = hydra.main(version_base="1.3", config_path="pkg://bugbench.conf", config_name="config")(run_one)
    try:
        app()
    except HydraException as error:
        sys.exit(f"bugbench: {error}" + (f"\n{error.__cause__}" if error.__cause__ else ""))
    except (Exception, KeyboardInterrupt) as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        if Leaderboard.running:
            Leaderboard.interrupted(error)
        elif interrupted:
            print("bugbench: interrupted. What was trained is kept: the same command goes on.", file=sys.stderr)
        else:
            raise
        sys.exit(INTERRUPTED if interrupted else 1)


if __name__ == "__main__":
    # the functions of a module that was run as a program have no name by which another process could find them
    from bugbench.__main__ import main as importable_main

    importable_main()
