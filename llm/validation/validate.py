"""Validation: predictions written down before the runs, the runs, and the verdicts.

``predictions.json`` is written before the first run and judged as it stands, whatever the code says later; a claim that is
new since then is added only while none of its runs has begun, one that is long work (a forecast) only when its chapter is
chosen. ``validation.json`` has a row for every claim whose runs are
finished; rows that are falsified stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from fstsim.errors import InputError
from fstsim.llm.experiments.plan import Planned, Scale
from fstsim.llm.experiments.run import check_runs, run_all
from fstsim.llm.experiments.spread import Jobs, device_here
from fstsim.llm.policy.adapters import check_adapter
from fstsim.llm.policy.folder import weights_digest
from fstsim.llm.policy.loading import find_model
from fstsim.llm.policy.policy import Policy
from fstsim.llm.runs.config import METHODS, Precision, TrainConfig
from fstsim.llm.validation.base import Base
from fstsim.llm.validation.claim import Ahead, Chapter, Claim, Records
from fstsim.llm.validation.distance import fast_slow, overlap_slope, razor
from fstsim.llm.validation.equilibria import dead_groups, replay, tilts
from fstsim.llm.validation.forecasts import forecasts, forecasts_further
from fstsim.llm.validation.kinds import Label
from fstsim.llm.validation.kl_estimators import kl_estimators
from fstsim.llm.validation.language import LANGUAGE, WORDS
from fstsim.llm.validation.leash_loss import leash_losses
from fstsim.llm.validation.methods import discover, mixtures, oapl, sdft, sdft_levels, sdft_rates
from fstsim.llm.validation.own_replay import own_replay
from fstsim.llm.validation.prediction import Judged, Prediction, judge
from fstsim.llm.validation.sequence_leashes import sequence_leashes
from fstsim.llm.validation.sequences import alternating, stalls
from fstsim.llm.validation.times import escapes, forgetting, relearning
from fstsim.places import published
from fstsim.reading import check_object, is_there, understood
from fstsim.records import check_settings, plain, read_json, working_in, write_json

CHAPTERS: Mapping[str, Callable[[Scale, Policy], Chapter]] = {
    "dead-groups": dead_groups,
    "replay": replay,
    "forgetting": forgetting,
    "escapes": escapes,
    "fast-slow": fast_slow,
    "relearning": relearning,
    "mixtures": mixtures,
    "sdft": sdft,
    "sdft-levels": sdft_levels,
    "sdft-rates": sdft_rates,
    "ttt": discover,
    "oapl": oapl,
    "tilts": tilts,
    "alternating": alternating,
    "stalls": stalls,
    "overlap": overlap_slope,
    "forecasts": forecasts,
    "forecasts-further": forecasts_further,
    "own-replay": own_replay,
    "sft-leashes": sequence_leashes,
    "leash-loss": leash_losses,
    "kl-estimators": kl_estimators,
}
"""In the order of their runs: what others build on comes first. Of models of the laboratory's world; `LANGUAGE` are those of chat models."""

LATER = ("own-replay", "forecasts-further", "sft-leashes", "leash-loss", "kl-estimators")
"""Chapters that came after the recorded validation: `fstsim reproduce` leaves them to `fstsim validate`."""
ADAPTER_LR = 10.0
"""Learning rate of an adapter over that of all weights: the factors of a product that begins at 0 move it by the square."""
_APART = ("forecasts", *LATER)
"""Chapters whose runs are not among those that the law of all runs is tested on: forecasts measure forgetting on old skills of
their own, the others came after it was judged."""


@dataclass(frozen=True)
class Trained:
    """How runs are trained: on which torch device, with which ``adapter`` in place of all weights, if any (as ``lora:r=16``), how precisely."""

    device: str = "cpu"
    adapter: str = ""
    precision: Precision = "float32"
    """of activations where weights are trained; predictions and measurements are in float32"""

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise InputError(f"precision must be one of {', '.join(get_args(Precision))}; got {self.precision!r}")
        if self.adapter:
            check_adapter(self.adapter)

    @property
    def plainly(self) -> bool:
        """Whether all weights are trained, in float32."""
        return self.about() == Trained().about()

    def about(self) -> dict[str, str]:
        """What the records of a validation say of it."""
        return {"adapter": self.adapter, "precision": self.precision}

    def config(self, config: TrainConfig) -> TrainConfig:
        """The run of ``config``, trained so where it trains weights."""
        config = replace(config, device=self.device)
        if METHODS[config.method].learner is None or (config.learner is not None and config.learner.deploys):
            return config
        config = replace(config, precision=self.precision)
        return replace(config, adapter=self.adapter, lr=ADAPTER_LR * config.lr) if self.adapter else config


@dataclass(frozen=True)
class Event:
    """Something is done: ``what``, of ``runs`` in all; the last one has the verdicts."""

    what: str
    runs: int
    judged: tuple[Judged, ...] = ()
    failed: bool = False


def all_chapters(scale: Scale, base: Policy) -> dict[str, Chapter]:
    """Every chapter for such a base, computed from it alone; in the world last the law that all runs together are to obey."""
    if base.template != "world":
        return {name: chapter(scale, base) for name, chapter in LANGUAGE.items()}
    chapters = {name: chapter(scale, base) for name, chapter in CHAPTERS.items()}
    common = [chapter for name, chapter in chapters.items() if name not in _APART]
    names = list(dict.fromkeys(run.name for chapter in common for run in chapter.runs))
    return {**chapters, "razor": razor(names)}


def validate(
    scale: Scale,
    model: str,
    seeds: int,
    out: Path,
    jobs: Jobs = -1,
    only: Sequence[str] = (),
    trained: Trained | None = None,
) -> Iterator[Event]:
    """Predict, write, run, judge: one event when the predictions are written, one a run, and last the verdicts.

    ``only`` names chapters whose runs are made; predictions are written (forecasts aside), and finished claims judged, for all. A run that
    diverges is an event that ``failed``, and what needs it is not judged. With an adapter every run trains one in place of all
    weights, at `ADAPTER_LR` times the learning rate; the predictions are the same, and what needs no run is not judged again, nor is it in bfloat16. Raises
    InputError, before anything is
    written, for an unknown chapter, a model or an adapter that no chapter is for or an ``out`` that belongs to something else.
    """
    for name in only:
        if name not in {**CHAPTERS, **LANGUAGE}:
            raise InputError(
                f"chapter {name!r} is unknown; allowed: {', '.join(CHAPTERS)}; of chat models {', '.join(LANGUAGE)}"
            )
    check_runs((), seeds, out, jobs)
    trained = trained or Trained()
    adapter = trained.adapter
    about = {"model": published(model), "scale": scale, **trained.about()}
    if about["model"] != model:  # a path of this machine: which model it is, its weights say
        about["model_sha256"] = weights_digest(find_model(model))
    found = _predicted(about, out)
    here = device_here(jobs, trained.device)
    base = Base.load(model, here)
    _check_model(base, model, only)
    base.model.eval()
    chapters = all_chapters(scale, base)
    claims = [claim for chapter in chapters.values() for claim in chapter.claims]
    planned = {
        run.name: replace(run, config=trained.config(replace(run.config, model=model)))
        for name, chapter in chapters.items()
        if not only or name in only
        for run in chapter.runs
    }
    _check_starts(planned.values(), adapter)
    runs = len(planned) * seeds
    waves = _waves(list(planned.values()))
    check_runs(waves[0] if waves else (), seeds, out, jobs)
    with working_in(out):
        now = [c for name, each in chapters.items() for c in each.claims if c.ahead is None or not only or name in only]
        written = _write_down(found, now, about, Ahead(out, planned))
        yield Event("predictions written", runs)
        for wave in waves:
            for what, failure in run_all(wave, seeds, out, jobs):
                yield Event(f"{what}: {failure}" if failure else what, runs, failed=bool(failure))
        records = Records(out, seeds, base)
        judged = []
        for claim in claims:
            prediction = written.get(claim.prediction.name)
            if prediction is None or not records.finished(claim.needs):
                continue
            if not trained.plainly and not claim.needs:  # of the base alone: judged where runs are as by default
                continue
            if claim.calibrated is not None:
                prediction = claim.calibrated(records)
            judged.append(judge(prediction, claim.measured(records)))
        rows = [
            {**j.prediction.to_dict(), "measured": j.measured, "measured_low": j.low, "measured_high": j.high,
             "seeds": j.seeds, "verdict": j.verdict}
            for j in judged
        ]  # fmt: skip
        write_json(out / "validation.json", plain(rows))
        yield Event("judged", runs, tuple(judged))


def _check_model(base: Policy, model: str, only: Sequence[str]) -> None:
    """InputError unless there are chapters for the model, and ``only`` names some of them."""
    if base.template != "world":
        words = str(base.tokenizer.decode(base.encode_answer(WORDS), skip_special_tokens=True))
        if base.template != "chat" or " ".join(words.split()) != WORDS:
            raise InputError(
                "predictions need the base model, one made by fstsim pretrain, or a chat model that writes English; "
                f"{model!r} is another"
            )
    own, kind = (CHAPTERS, "models of its world") if base.template == "world" else (LANGUAGE, "chat models")
    for name in only:
        if name not in own:
            raise InputError(f"chapter {name!r} is not of {kind}; for {model!r} allowed: {', '.join(own)}")


def _check_starts(planned: Iterable[Planned], adapter: str) -> None:
    """InputError where a run starts from the model of another one, which an adapter's folder alone is not."""
    after = sorted({run.name for run in planned if run.after is not None})
    if adapter and after:
        raise InputError(
            f"--adapter writes no whole models, and {', '.join(after)} start from such: name other chapters with --only"
        )


def _waves(planned: Sequence[Planned]) -> list[list[Planned]]:
    """Runs from the base first, then those that start from where another one ended."""
    waves = [[run for run in planned if run.after is None], [run for run in planned if run.after is not None]]
    return [wave for wave in waves if wave]


def _predicted(about: Mapping[str, str], out: Path) -> list[Prediction]:
    """The predictions as they stand in ``predictions.json``, none where it is not; InputError if it is not ``about`` the same."""
    place = out / "predictions.json"
    if not is_there(place):
        return []
    record = check_object(place, read_json(place), {"model": str, "scale": str, "predictions": list})
    # these came later
    was = {
        **Trained().about(),
        "model_sha256": about.get("model_sha256"),
        **record,
        "model": published(record["model"]),
    }
    check_settings(out, was, about, "validation")
    with understood(place):
        return [_read(row, place) for row in record["predictions"]]


def _write_down(
    found: Sequence[Prediction], claims: Sequence[Claim], about: Mapping[str, str], ahead: Ahead
) -> dict[str, Prediction]:
    """``found`` and what may still be added to it, by name; written if something is, or nothing was."""
    place = ahead.out / "predictions.json"
    names = {prediction.name for prediction in found}
    begun = {path.name for path in (ahead.out / "runs").iterdir()} if (ahead.out / "runs").is_dir() else set()
    fresh = [c for c in claims if c.prediction.name not in names and not begun & set(c.needs)]
    new = [c.prediction if c.ahead is None else c.ahead(ahead) for c in fresh]
    if new or not place.exists():
        predictions = [p.to_dict() for p in [*found, *new]]
        write_json(place, plain({**about, "predictions": predictions}))
    return {p.name: p for p in [*found, *new]}


def _read(row: Mapping[str, Any], place: Path) -> Prediction:
    if "label" not in row:
        raise InputError(
            f"{place}: prediction {row['name']} has no label: add it with python -m fstsim.paper.records.convert"
        )
    numbers = {k: float("nan") if row[k] is None else float(row[k]) for k in ("value", "low", "high", "resolution")}
    return Prediction(**{**row, **numbers, "label": Label(**row["label"])})  # JSON has no nan
