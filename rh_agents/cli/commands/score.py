"""`rh-agents score`: a number for each outcome of a run, their mean, and how two runs differ."""

from __future__ import annotations

import json
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from rh_agents.cli.arguments import Callee, make_callee
from rh_agents.cli.commands.common import AsJson, RunName, StoreOfRuns, parameters_of
from rh_agents.cli.errors import CommandError
from rh_agents.cli.estimates import Estimate, estimate
from rh_agents.cli.json_text import json_line
from rh_agents.cli.options import TARGET_HELP, AcceptChanges, ProgressMode
from rh_agents.cli.output.page import Page, Part
from rh_agents.cli.output.progress import Progress, shown
from rh_agents.cli.output.results import expect_standard_output
from rh_agents.cli.output.wording import counted
from rh_agents.cli.process import run_to_the_end
from rh_agents.cli.recorded_command import Invocation, RunCommand, derived_run_id, here
from rh_agents.cli.run_options import RunOptions
from rh_agents.cli.scoring import (
    ItemStatus,
    RecordedItem,
    ScoredItem,
    Scoring,
    items_of_group,
    items_of_map,
    score_items,
)
from rh_agents.cli.stores import DEFAULT_STORE, existing_run, kept_store
from rh_agents.cli.targets import file_of, load_actor, short_name
from rh_agents.core._base.sources import fingerprint
from rh_agents.core.ports import RunInfo, Store
from rh_agents.core.ports.keeping import expect_values
from rh_agents.decorators import ActorFunction, tool
from rh_agents.display.text import harmless

__all__ = ["SCHEMA", "Counted", "score_command"]

SCHEMA = "rh-agents/score/1"
"""The form of what `--json` writes. Fields may be added to it; what is there keeps its meaning."""
_NAMED = 5
"""Items that are named. With `--json` all are."""


class Counted(StrEnum):
    """What an item without a score counts as."""

    EXCLUDE = "exclude"
    ZERO = "zero"


def score_command(
    ctx: typer.Context,
    run: RunName,
    scorer: Annotated[str, typer.Argument(metavar="MODULE:SCORER", help=TARGET_HELP, show_default=False)],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Score this run as well, and compare the two item by item: RUN minus this one."
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Items that have the same in this field may depend on each other."),
    ] = None,
    failed: Annotated[Counted, typer.Option(help="What items count as whose call failed.")] = Counted.EXCLUDE,
    missing: Annotated[Counted, typer.Option(help="What items count as that have no outcome.")] = Counted.EXCLUDE,
    items: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="For runs of `map`: read the items from this file and not from their input."),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="For runs of Python code with several groups: whose members are scored."),
    ] = None,
    max_workers: Annotated[
        int, typer.Option("--max-workers", "-n", min=1, metavar="N", help="Items that are scored at the same time.")
    ] = 5,
    accept_changes: AcceptChanges = False,
    as_json: AsJson = False,
    progress: ProgressMode = Progress.AUTO,
    store: StoreOfRuns = DEFAULT_STORE,
) -> None:
    """Score the recorded outcomes of a run: the mean with its standard error.

    SCORER is called with what it has parameters for: `output` (what the call returned), `input` (the item) and the
    fields of the item by their names. It returns a number, or True or False. Nothing else is called. Scores are
    recorded in a run of their own: repeating the command scores only what is new, and a changed scorer scores all.

    Items whose call failed, and items without an outcome, are counted and named, and excluded or counted as 0.

    Exit codes: 0 every outcome has a score; 1 the scorer failed for some; 2 usage; 3 waiting for answers; 130
    interrupted.
    """
    expect_standard_output()
    if against == run:
        raise CommandError(f"--against {against}: that is the run itself; name another one")
    loaded = load_actor(scorer, tool)
    job = _Score(ctx, scorer, loaded, make_callee(loaded), items, group, max_workers, accept_changes)
    url = Invocation.of(ctx).store or store

    async def work() -> list[Scoring]:
        async with kept_store(url, read_only=False) as opened:
            runs = [run] if against is None else [run, against]
            found = [
                (info, await job.items_of(opened, info)) for info in [await existing_run(opened, each) for each in runs]
            ]
            return [await job.score(opened, info, scoring, its, progress) for info, (scoring, its) in found]

    report = _Report(run_to_the_end(work()), job.callee.name, cluster, failed, missing)
    if as_json:
        sys.stdout.write(json_line("score", report.record()))
    else:
        report.show(Page())
    raise typer.Exit(int(any(each.of(ItemStatus.UNSCORED) for each in report.scorings)))


@dataclass(frozen=True, slots=True)
class _Score:
    """What is to be done with each run."""

    context: typer.Context
    spec: str
    loaded: Any
    callee: Callee
    source: str | None
    group: str | None
    max_workers: int
    accept_changes: bool

    async def items_of(self, store: Store, info: RunInfo) -> tuple[Scoring, list[RecordedItem]]:
        """The items of a run.

        Raises:
            CommandError: they cannot be read.
        """
        expect_values(info, "scored")
        command = RunCommand.of(info)
        scoring = Scoring(info.run_id, self._options(info).run_id)
        if command is not None and command.kind == "map":
            if self.group is not None:
                raise CommandError(f"--group is for runs of Python code, and run {info.run_id!r} is a `map`")
            parameters = parameters_of(self.context, command)
            items, scoring.gone, scoring.source = await items_of_map(
                store, info, command.folder, parameters, self.source
            )
        elif self.source is not None:
            raise CommandError(f"--items is for runs of `map`, and run {info.run_id!r} is none")
        else:
            items = await items_of_group(store, info.run_id, self.group)
        if not items:
            raise CommandError(f"run {info.run_id!r} has no items to score")
        return scoring, items

    async def score(
        self, store: Store, info: RunInfo, scoring: Scoring, items: Sequence[RecordedItem], progress: Progress
    ) -> Scoring:
        """Score the items of a run, in a run of its own."""
        options = self._options(info)
        known = await store.find_run(options.run_id)
        if known is not None:
            options.command.check_same(known)
        # With `reuse`: every item carries its own identity, so outcomes that have come since do no harm.
        state = options.state(store, {"run": info.run_id, "scorer": self.spec}, reuse=True)
        with shown(progress) as display:
            if display is not None:
                display.follow(state)
            scoring.items = await score_items(items, self.callee, state, self.max_workers)
        return scoring

    def _options(self, info: RunInfo) -> RunOptions:
        """How it is executed. Another scorer, and other code of it, is another run."""
        words = ["score", info.run_id, self.spec]
        words += [] if self.source is None else ["--items", self.source]
        words += [] if self.group is None else ["--group", self.group]
        command = RunCommand(tuple(words), here(), "score", f"{short_name(self.spec)}:{self.callee.name}")
        function = self.loaded if isinstance(self.loaded, ActorFunction) else self.loaded.handler
        name = derived_run_id(
            self.callee.name, "score", info.run_id, file_of(self.spec), str(fingerprint(function)), self.group or ""
        )
        about = Invocation.of(self.context)
        return RunOptions.of(
            self.context,
            command,
            name,
            about.store or "",
            None,
            ("scores",),
            retry_failed=True,
            executors={},
            target=self.loaded,
            accept_changes=self.accept_changes,
        )


# -- what came of it --------------------------------------------------------------------------------------------------


class _Report:
    """The numbers of one run or of two."""

    def __init__(
        self, scorings: list[Scoring], scorer: str, cluster: str | None, failed: Counted, missing: Counted
    ) -> None:
        self.scorings = scorings
        self._scorer = scorer
        self._cluster = cluster
        self._counted = {ItemStatus.FAILED: failed, ItemStatus.MISSING: missing}
        self._counting = [[each for each in scoring.items if self._counts(each)] for scoring in scorings]
        self._means = [
            estimate([each.score for each in items], self._clusters([each.item for each in items]))
            for items in self._counting
        ]
        self._pairs, self._alone = self._paired() if len(scorings) > 1 else ([], [])

    def _counts(self, each: ScoredItem) -> bool:
        return each.status is ItemStatus.SCORED or self._counted.get(each.status) is Counted.ZERO

    def _clusters(self, items: Sequence[RecordedItem]) -> list[Hashable] | None:
        return None if self._cluster is None else [self._cluster_of(item, self._cluster) for item in items]

    @staticmethod
    def _cluster_of(item: RecordedItem, name: str) -> Hashable:
        if not isinstance(item.value, dict) or name not in item.value:
            raise CommandError(f"--cluster {name}: item {harmless(item.label)} has no such field")
        return json.dumps(item.value[name], sort_keys=True, default=repr)

    def _paired(self) -> tuple[list[tuple[ScoredItem, ScoredItem]], list[list[ScoredItem]]]:
        """Items that count in both runs, and those of each run of which the other one has none that does."""
        first, second = ({each.item.identity: each for each in items} for items in self._counting)
        pairs = [(each, second[identity]) for identity, each in first.items() if identity in second]
        return pairs, [
            [each for identity, each in its.items() if identity not in other]
            for its, other in ((first, second), (second, first))
        ]

    @property
    def _difference(self) -> Estimate:
        clusters = self._clusters([one.item for one, _ in self._pairs])
        return estimate([one.score - other.score for one, other in self._pairs], clusters)

    def record(self) -> dict[str, Any]:
        """The numbers for programs."""
        record: dict[str, Any] = {
            "schema": SCHEMA,
            "scorer": self._scorer,
            "cluster": self._cluster,
            "runs": [self._record_of(scoring, mean) for scoring, mean in zip(self.scorings, self._means, strict=True)],
        }
        if len(self.scorings) > 1:
            names = ("only_in_run", "only_in_against")
            alone = {name: [each.item.label for each in its] for name, its in zip(names, self._alone, strict=True)}
            record["difference"] = _record_of_estimate(self._difference) | alone
        return record

    def _record_of(self, scoring: Scoring, mean: Estimate) -> dict[str, Any]:
        record = {"run_id": scoring.run_id, "scored_in": scoring.scored_in, "items": len(scoring.items)}
        for status in (ItemStatus.FAILED, ItemStatus.MISSING, ItemStatus.UNSCORED):
            record[status.value] = {
                "counted_as": self._counted.get(status, Counted.EXCLUDE).value,
                "items": [{"id": each.item.label, "reason": each.reason} for each in scoring.of(status)],
            }
        return record | {"gone": scoring.gone} | _record_of_estimate(mean)

    def show(self, page: Page) -> None:
        """Print the numbers, and below them what they are not of."""
        rows = [
            (scoring.run_id, f"{len(scoring.of(ItemStatus.SCORED))} of {len(scoring.items)}", mean)
            for scoring, mean in zip(self.scorings, self._means, strict=True)
        ]
        if len(self.scorings) > 1:
            rows.append(("difference", counted(len(self._pairs), "pair"), self._difference))
        width = max(len(harmless(name)) for name, _, _ in rows)
        numbers = max(len("scored"), *(len(text) for _, text, _ in rows))
        head = f"{self._scorer:<{width}}  {'scored':>{numbers}}  {'mean':>7}  {'std err':>7}  95 %"
        page.line(Part(harmless(head), "dim"))
        for name, text, its in rows:
            page.line(
                f"{harmless(name):<{width}}  {text:>{numbers}}  {_shown(its.mean)}  {_shown(its.stderr)}  {_range(its)}"
            )
        clusters = self._means[0].clusters
        if clusters is not None:
            page.paragraph(f"standard errors are of {counted(clusters, 'cluster')} of {harmless(str(self._cluster))}")
        for scoring in self.scorings:
            self._show_rest(page, scoring)
        for scoring, alone in zip(self.scorings, self._alone, strict=False):
            if alone:
                page.paragraph(f"only in {harmless(scoring.run_id)}, and in no pair: {_names(alone)}", "yellow")
        recorded = " and ".join(harmless(scoring.scored_in) for scoring in self.scorings)
        page.paragraph(f"the scores are recorded in {recorded}", "dim")

    def _show_rest(self, page: Page, scoring: Scoring) -> None:
        run = harmless(scoring.run_id)
        for status in (ItemStatus.FAILED, ItemStatus.MISSING, ItemStatus.UNSCORED):
            its = scoring.of(status)
            if its:
                is_zero = self._counted.get(status) is Counted.ZERO
                how = "counted as 0" if is_zero else "excluded"
                page.paragraph(f"{run}: {len(its):,} {status.value}, {how}: {_names(its)}", "yellow")
        if scoring.of(ItemStatus.UNSCORED):
            each = scoring.of(ItemStatus.UNSCORED)[0]
            page.paragraph(f"{harmless(each.item.label)} has no score: {harmless(each.reason, 500)}", "red")
        if scoring.gone:
            calls = counted(scoring.gone, "recorded call")
            page.paragraph(
                f"{run}: {calls} of no item in {harmless(scoring.source)} as it is now, not scored", "yellow"
            )


def _record_of_estimate(its: Estimate) -> dict[str, Any]:
    return {
        "count": its.numbers,
        "mean": its.mean,
        "stderr": its.stderr,
        "interval_95": None if its.interval is None else list(its.interval),
        "clusters": its.clusters,
    }


def _shown(number: float | None) -> str:
    return f"{'–' if number is None else format(number, '.3f'):>7}"


def _range(its: Estimate) -> str:
    return "–" if its.interval is None else f"{its.interval[0]:.3f} to {its.interval[1]:.3f}"


def _names(items: Sequence[ScoredItem]) -> str:
    more = f" and {len(items) - _NAMED:,} more" if len(items) > _NAMED else ""
    return ", ".join(harmless(each.item.label, 80) for each in items[:_NAMED]) + more
