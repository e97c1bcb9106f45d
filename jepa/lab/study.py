"""A study: what one notebook trains, measures and leaves behind.

    study = Study("01_energies_and_capacity", profile, seeds, overrides, out)
    table = study.run()                      every variant and seed, in parallel, resumed where it was cut
    study.add("E1", "discrete_8", "volume_ratio", ratio)
    study.show(figure, "wells")
    study.finish()

Variants are the files of `experiments/<notebook>/`; a profile and a notebook's `overrides` are laid over them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML, Image, Markdown, display
from matplotlib.figure import Figure

from jepa.data import HeldOut, load
from jepa.evaluate.subject import Row, Subject
from jepa.lab import ledger, page, paths, progress, style
from jepa.lab.verdict import Measurement, judge_claim
from jepa.model import JEPA
from jepa.runs import behavior, build
from jepa.runs.config import configure, read_diff, unknown
from jepa.runs.data import made_by
from jepa.runs.processes import cores
from jepa.runs.run import Run, load_model, load_parts
from jepa.runs.tasks import tasks
from jepa.runs.variants import Variant, choose, read
from jepa.runs.workers import execute_all

COLUMNS = list(Measurement._fields)
SHORT = ("smoke", "behavior")  # profiles that decide no claim


class Study:
    """The runs, measurements and figures of one notebook at one profile."""

    def __init__(self, notebook: str, profile: str, seeds: int | None, overrides: Mapping[str, Any], out: str) -> None:
        """Args: notebook: its name; profile: smoke, cpu or gpu; seeds: how many, None for the profile's number;
        overrides: settings laid over every variant; out: folder to write to, "" for scratch.

        Raises: ValueError for a profile, seeds or setting that does not exist.
        """
        settings = read_diff(paths.profile(profile))
        name = notebook.partition("_")[2]
        if name not in settings:
            raise unknown(f"{paths.profile(profile).name}: section of notebook {notebook!r}", name, settings)
        section = settings[name]
        seeds = section["seeds"] if seeds is None else seeds
        if type(seeds) is not int or seeds < 1:
            raise ValueError(f"seeds: expected a whole number of at least 1, found {seeds!r}")
        self.notebook, self.profile, self.seeds = notebook, profile, range(seeds)
        self.out, self.workers = paths.output(out, notebook), settings["workers"] or cores()
        self.settings = {"device": settings["device"], **section["overrides"]}  # of the profile
        self._cut = settings.get("cut")
        self._diffs = [self.settings, overrides]
        self._rows: list[Measurement] = []
        self.runs: dict[tuple[str, int], Run] = {}  # by variant and seed
        configure(*self._diffs)  # a misspelt override stops here, before anything runs
        style.use()

    @cached_property
    def variants(self) -> dict[str, Variant]:
        """All variants of the notebook by name, levels as `<variant>_<level>`."""
        return read(paths.variants(self.notebook), *self._diffs)

    def run(self, *names: str, times: int = 1, seeds: int | None = None) -> pd.DataFrame:
        """Return the measurements of the named variants (default: all), training what is not yet trained.

        Args: times: so many times as many seeds as the study has, for a claim whose seeds had to grow; seeds: so many
            of them in their place, such as one for what is only shown; a short profile takes no more than it has.
        Raises: ValueError for a variant that does not exist, or times or seeds < 1.
        """
        for name, number in (("times", times), ("seeds", 1 if seeds is None else seeds)):
            if number < 1:
                raise ValueError(f"{name}: expected at least 1, found {number}")
        count = times * len(self.seeds) if seeds is None else seeds
        if seeds is not None and self.profile in SHORT:
            count = min(count, len(self.seeds))
        seeds, behaviors = range(count), behavior.read(paths.behaviors())
        asked = tasks(self.variants, choose(self.variants, names), seeds, paths.data, behaviors)
        with progress.shown(self.notebook) as file:
            runs = execute_all(asked, paths.runs(), self.workers, file, self._cut)
        for run in runs:
            name, seed = run.task.name, run.task.seed
            if (name, seed) not in self.runs:
                self._keep(self.variants[name].claim, name, *((seed, row) for row in run.rows))
            self.runs[name, seed] = run
        return self.table

    @property
    def table(self) -> pd.DataFrame:
        """All measurements so far: claim, variant, seed, metric, value, count."""
        return pd.DataFrame(self._rows, columns=COLUMNS).astype({"count": "Int64"})

    def values(self, metric: str, variant: str) -> pd.Series:
        """Return one metric of one variant, indexed by seed. Raises: ValueError if it was not measured."""
        return self.long(metric, variant).set_index("seed").value

    def wide(self, metric: str, *variants: str) -> pd.DataFrame:
        """Return one metric with a row per seed and a column per variant."""
        return pd.DataFrame({variant: self.values(metric, variant) for variant in variants})

    def long(self, metric: str, *variants: str) -> pd.DataFrame:
        """Return the rows of one metric for the named variants, in their order. Raises: ValueError as `values` does."""
        table, parts = self.table, []
        for variant in variants:
            rows = table[(table.metric == metric) & (table.variant == variant)]
            parts.append(rows.drop_duplicates("seed"))  # the same number may serve several claims
            if parts[-1].empty:
                raise unknown("metric, variant", f"{metric}, {variant}", set(table.metric + ", " + table.variant))
        return pd.concat(parts, ignore_index=True)

    def volumes(self, variant: str) -> pd.DataFrame:
        """Return the log volumes of a variant against the thresholds they were measured at: seed, epsilon, value."""
        epsilons = self._variant(variant).config.option("codimension", "epsilons")
        parts = [self.long(f"log_volume_{epsilon:.1e}", variant).assign(epsilon=epsilon) for epsilon in epsilons]
        return pd.concat(parts, ignore_index=True)[["seed", "epsilon", "value"]]

    def diagnostics(self, *variants: str) -> pd.DataFrame:
        """Return the diagnostics of trainings in their course: variant, seed, step, name, value. Raises: as `model`."""
        runs = [self._done(variant, seed) for variant in variants for seed in self.seeds]
        tables = []
        for run in runs:
            table = pd.DataFrame(run.diagnostics).melt("step", var_name="name")
            tables.append(table.assign(variant=run.task.name, seed=run.task.seed))
        return pd.concat(tables, ignore_index=True)[["variant", "seed", "step", "name", "value"]]

    def warnings(self, *variants: str, seed: int = 0) -> dict[str, list[str]]:
        """Return the warnings during the trainings of variants, by variant. Raises: ValueError as `model` does."""
        return {variant: self._done(variant, seed).warnings for variant in variants}

    def world(self, variant: str) -> Any:
        """Return the world of a variant."""
        return build.world(self._variant(variant).config)

    def held_out(self, variant: str) -> HeldOut:
        """Return the held-out set of a variant, verified."""
        chosen = self._variant(variant)
        return load(paths.data(chosen.data), made_by(chosen.config.world))

    def add(self, claim: str, variant: str, metric: str, values: Mapping[int, float] | pd.Series) -> None:
        """Add a derived measurement, one value per seed."""
        self._keep(claim, variant, *((seed, Row(metric, value)) for seed, value in values.items()))

    def share(self, variant: str, claims: Mapping[str, tuple[str, ...]]) -> None:
        """Let what was measured on a variant for one claim serve others: claim -> metrics."""
        for claim, metrics in claims.items():
            for metric in metrics:
                rows = self.long(metric, variant)
                counts = (None if pd.isna(count) else int(count) for count in rows["count"])
                found = zip(rows.seed, rows.value, counts, strict=True)
                self._keep(claim, variant, *((seed, Row(metric, value, count)) for seed, value, count in found))

    def subject(self, variant: str, seed: int = 0) -> Subject:
        """Return a trained model with what it is measured on. Raises: ValueError if it was not run."""
        reference = float(self.values("reference_energy", variant)[seed])
        run, held_out = self._done(variant, seed), self.held_out(variant)
        return build.subject(run.task.config, seed, load_parts(run.task, run.folder), held_out, reference)

    def model(self, variant: str, seed: int = 0) -> JEPA:
        """Return a trained model of this study. Raises: ValueError if it was not run."""
        return load_model(self._done(variant, seed))

    def show(self, figure: Figure, name: str) -> None:
        """Save a figure and show it; a smoke run that trained shows the committed one of the cpu profile above it."""
        style.save(figure, self.out / "figures" / f"{name}.png")
        committed = paths.results("cpu", self.notebook) / "figures" / f"{name}.png"
        if self.profile == "smoke" and self.runs and committed.is_file():
            display(Markdown(f"**Evidence: profile `cpu`, all seeds** (`{committed.relative_to(paths.root())}`)"))
            display(Image(committed.read_bytes(), width=800))
            display(
                Markdown(f"**This run: profile `{self.profile}`, {len(self.seeds)} seeds, a fraction of the training**")
            )
        display(style.picture(figure))

    def verdicts(self, *claims: str) -> HTML:
        """Return the computed verdicts of claims, why they are open, and caveats; a smoke run shows those of cpu."""
        entries, profile = self._entries(claims)
        lines = [f"<p>Profile {profile}.</p>", *(page.paragraph(claim, entries[claim]) for claim in claims)]
        return HTML("\n".join(lines))

    def checks(self, *claims: str) -> HTML:
        """Return every check of claims with its interval, from where `verdicts` takes them."""
        entries, profile = self._entries(claims)
        return HTML(f"<p>Profile {profile}.</p>" + page.checks({claim: entries[claim] for claim in claims}).data)

    def ledger(self) -> dict[str, dict[str, Any]]:
        """Return the ledger of the profile, for smoke that of cpu if it is there. Raises: ValueError if none is."""
        profile = "cpu" if self.profile in SHORT and self._ledger("cpu").is_file() else self.profile
        return ledger.load(self._ledger(profile))

    def finish(self) -> None:
        """Write what was measured: measurements.csv and metrics.json."""
        if self._rows:
            self._write_measurements()

    def _write_measurements(self) -> None:
        """Write all rows, and their means for `dvc metrics`."""
        table = self.table.sort_values(["claim", "variant", "metric", "seed"], kind="stable")
        table["value"] = table["value"].map("{:.6g}".format)
        paths.write(self.out / "measurements.csv", table.to_csv(index=False, lineterminator="\n"))
        means = self.table.groupby(["metric", "variant"]).value.mean()
        nested = {
            metric: {v: float(f"{x:.4g}") for v, x in group.droplevel(0).items()}
            for metric, group in means.groupby(level=0)
        }
        paths.write(self.out / "metrics.json", json.dumps(nested, indent=1) + "\n")

    def _variant(self, name: str) -> Variant:
        """Return a variant. Raises: ValueError if there is none of that name."""
        return choose(self.variants, (name,))[0]

    def _done(self, variant: str, seed: int) -> Run:
        """Return a run of this study. Raises: ValueError if it was not run."""
        if (variant, seed) not in self.runs:
            raise unknown("variant, seed", f"{variant}, {seed}", {f"{name}, {number}" for name, number in self.runs})
        return self.runs[variant, seed]

    def _entries(self, claims: tuple[str, ...]) -> tuple[dict[str, dict[str, Any]], str]:
        """Return the ledger's entries by this run, for smoke the committed ones of cpu, and whose they are in words."""
        if self.profile in SHORT and self._ledger("cpu").is_file():
            return ledger.load(self._ledger("cpu")), "cpu, committed"
        return self._judge(claims), self.profile

    def _ledger(self, profile: str) -> Path:
        """Return where the ledger of a profile is."""
        return paths.root() / "results" / profile / "claims.json"

    def _keep(self, claim: str, variant: str, *rows: tuple[int, Row]) -> None:
        """Keep measurements, at the six digits that are also written."""
        for seed, (metric, value, count) in rows:
            if not math.isfinite(value):
                raise ValueError(f"{claim}, {variant}, {metric}, seed {seed}: expected a finite number, found {value}")
            self._rows.append(Measurement(claim, variant, int(seed), metric, float(f"{value:.6g}"), count))

    def _judge(self, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """Return the ledger's entries of claims by this study's own measurements."""
        claims = ledger.read_claims(paths.root() / "experiments" / "claims.yaml")
        return {claim.id: judge_claim(claim, self._rows, self.profile) for claim in claims if claim.id in names}
