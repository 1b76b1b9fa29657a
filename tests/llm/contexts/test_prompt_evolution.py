"""The fast channel: GEPA on a policy that follows rules, with reflectors whose texts are known.

The policy is tiny and real: trained in a few seconds until it follows four one-word rules on strings of three letters. The
front that is kept is computed again in plain Python; what was drawn is counted at the policy.
"""

from __future__ import annotations

import copy
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gepa.core.adapter import EvaluationBatch
from hypothesis import given
from hypothesis import strategies as st

import fstsim.llm.contexts.prompt_evolution as module
from fstsim.errors import InputError
from fstsim.llm.contexts.policy_adapter import PolicyAdapter
from fstsim.llm.contexts.prompt_evolution import PromptEvolution
from fstsim.llm.contexts.proposals import UnusableProposal, context_from
from fstsim.llm.contexts.reflection import ReflectorDown, SelfReflection
from fstsim.llm.learners.policy_gradient import PolicyGradient
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.loading import shipped_path
from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.corpus import collate
from fstsim.llm.tasks.families import STRINGS
from fstsim.llm.tasks.rules import RuleTask, draw_problem
from fstsim.llm.types import UNUSABLE, Population, Problem

MakePolicy = Callable[..., Policy]

RULES = ("reverse", "next", "rotate", "mirror")
TASK = RuleTask("strings", ("reverse",), size=3)
TWO = RuleTask("strings", ("next", "rotate"), size=3)
SHARE = replace(TASK, reward="share")


@pytest.fixture(scope="module")
def trained(make_policy: MakePolicy) -> Policy:
    """A policy of two layers, width 64, after 160 steps on ``rule | letters =`` and ``| letters =``; not to be changed."""
    policy = make_policy(
        hidden_size=64, intermediate_size=128, num_attention_heads=2, head_dim=32, initializer_range=0.02
    )
    model = policy.model
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = (
        torch.optim.Muon(matrices, lr=5e-3, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=5e-3, weight_decay=0.0),
    )
    rng, steps = np.random.default_rng(0), 160
    for step in range(steps):
        lines = []
        for _ in range(48):
            problem, start = draw_problem(STRINGS, rng, "train", 3)
            rules = [(), *((word,) for word in RULES)][int(rng.integers(len(RULES) + 1))]
            lines.append(([*rules, "|", *problem.text, "="], [*STRINGS.apply(rules, start)]))
        tokens, labels = collate(lines)
        keep = labels >= 0
        F.cross_entropy(model(tokens, use_cache=False).logits[keep], labels[keep]).backward()
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 5e-3 * min(1.0, (step + 1) / 10, (steps - step) / (0.5 * steps))
            optimizer.step()
            optimizer.zero_grad()
    return policy


@pytest.fixture
def weights(trained: Policy) -> Weights:
    """The trained policy as slow weights, a copy for each test."""
    policy = Policy.of(copy.deepcopy(trained.model), trained.tokenizer)
    return Weights(policy, trained, torch.optim.AdamW(policy.model.parameters(), lr=1e-3))


@dataclass
class Scripted:
    """A reflector that proposes ``texts`` in turn, and remembers what it was shown."""

    texts: Sequence[str]
    shown: list[tuple[str, list[Mapping[str, str]]]] = field(default_factory=list)

    def propose(
        self, policy: Policy, context: str, records: Sequence[Mapping[str, str]], rng: np.random.Generator
    ) -> tuple[str, int]:
        assert isinstance(policy, Policy)
        assert isinstance(rng, np.random.Generator)
        self.shown.append((context, list(records)))
        return self.texts[(len(self.shown) - 1) % len(self.texts)], 0


def evolution(*texts: str, **changes: Any) -> PromptEvolution:
    settings: dict[str, Any] = {"contexts": 3, "rollout_budget": 120, "validation": 8, "shown": 4, "max_new_tokens": 4}
    return PromptEvolution(reflector=Scripted(texts or ("next", "reverse", "rotate")), **{**settings, **changes})


Scored = dict[tuple[str, str], list[float]]


@dataclass
class Record:
    """What one or more rounds asked of the policy: a list of rounds, each with its adapter's rewards and draws."""

    rounds: list[Scored] = field(default_factory=list)
    validation: list[list[str]] = field(default_factory=list)
    encoded: list[tuple[str, str]] = field(default_factory=list)
    drawn: int = 0


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    """Watches the adapter and the policy from outside, changing nothing."""
    held = Record()
    scores, sample, encode = PolicyAdapter.scores, Policy.sample, Policy.encode
    adapters: list[PolicyAdapter] = []

    def watched_scores(self: PolicyAdapter, context: str, problems: Sequence[Problem]) -> Any:
        if not any(self is known for known in adapters):
            adapters.append(self)
            held.rounds.append({})
            held.validation.append([p.uid for p in problems])  # the first thing a round scores
        found = scores(self, context, problems)
        for problem, (_, reward, _) in zip(problems, found, strict=True):
            held.rounds[-1].setdefault((context, problem.uid), []).append(reward)
        return found

    def watched_sample(self: Policy, *args: Any, **kwargs: Any) -> Any:
        found = sample(self, *args, **kwargs)
        held.drawn += len(found)
        return found

    def watched_encode(self: Policy, context: str, problem: Problem) -> list[int]:
        held.encoded.append((context, problem.uid))
        return encode(self, context, problem)

    monkeypatch.setattr(PolicyAdapter, "scores", watched_scores)
    monkeypatch.setattr(Policy, "sample", watched_sample)
    monkeypatch.setattr(Policy, "encode", watched_encode)
    return held


def pareto(table: Mapping[str, Sequence[float]], most: int) -> list[str]:
    """The per-instance Pareto front in plain Python: contexts that are best on some problem, without those (worst mean

    first) whose every such problem has another best one; the best means of them.
    """
    names = list(table)
    mean = {name: sum(table[name]) / len(table[name]) for name in names}
    problems = range(len(table[names[0]]))
    best = {j: [name for name in names if table[name][j] == max(t[j] for t in table.values())] for j in problems}
    alive = [name for name in names if any(name in group for group in best.values())]
    for name in sorted(alive, key=mean.__getitem__):
        if all(len([other for other in group if other in alive]) > 1 for group in best.values() if name in group):
            alive.remove(name)
    return sorted(alive, key=lambda name: (-mean[name], names.index(name)))[:most]


# --- a round ---------------------------------------------------------------------------------------------------------


def test_the_policy_follows_rules(trained: Policy) -> None:
    """Or nothing below means anything: right in the right context, nearly never without."""
    problems = TASK.problems("test")[:20]

    def solved(context: str) -> float:
        prompts = [trained.encode(context, p) for p in problems]
        drawn = trained.sample(prompts, 4, torch.Generator().manual_seed(0), max_new_tokens=4)
        texts = trained.decode(drawn)
        return float(np.mean([TASK.score(problems[i // 4], text).reward for i, text in enumerate(texts)]))

    assert solved("reverse") > 0.8
    assert solved("") < 0.4
    assert solved("next") < 0.1


def test_a_round_finds_the_rule_that_the_reflector_proposes(weights: Weights, rng: np.random.Generator) -> None:
    """GEPA really mutates: more candidates than the seed, the right one best, and it says what it was written from."""
    evolve = evolution("next", "reverse", "rotate")
    population, info = evolve.step(weights, Population(), TASK, rng)
    assert info.metrics["fast_candidates"] > 1
    assert info.metrics["fast_reflections"] == len(evolve.reflector.shown) > 1
    assert population.prompts[0] == "reverse"
    assert dict(population.lineage)["reverse"] in ("", "next", "rotate")
    assert population.scores[0] == info.metrics["fast_best"] > 0.7
    assert list(population.scores) == sorted(population.scores, reverse=True)
    assert info.metrics["fast_mean"] == pytest.approx(np.mean(population.scores))
    assert info.samples == info.metrics["fast_rollouts"]


def test_proposals_that_do_not_help_are_not_taken(weights: Weights, rng: np.random.Generator) -> None:
    population, info = evolution("next", "mirror").step(weights, Population(), TASK, rng)
    assert population.prompts == ("",)
    assert population.lineage == ()
    assert info.metrics["fast_reflections"] > 1


def test_the_seed_of_a_population_is_the_empty_context() -> None:
    assert Population().prompts == ("",)


def test_the_reflector_sees_failures_in_words_and_never_the_rules(weights: Weights, rng: np.random.Generator) -> None:
    """What was asked, what was written, what the environment said: of problems of the validation split only."""
    evolve = evolution("prev prev", "sort")
    evolve.step(weights, Population(), TASK, rng)
    asked = {p.question: p for p in TASK.problems("validation")}
    assert evolve.reflector.shown
    for context, records in evolve.reflector.shown:
        assert context == ""
        assert len(records) == 4
        for entry in records:
            assert entry.keys() == {"Inputs", "Generated Outputs", "Feedback"}
            problem = asked[entry["Inputs"]]
            assert entry["Feedback"] == TASK.score(problem, entry["Generated Outputs"]).feedback
            assert not any(word in " ".join(entry.values()).split() for word in STRINGS.rules)
        assert any(entry["Feedback"].startswith("wrong") for entry in records)


def test_what_is_kept_is_the_front_of_every_context_scored(
    weights: Weights, record: Record, rng: np.random.Generator
) -> None:
    """Recomputed from the rewards that the adapter gave out on the validation problems, over four rounds."""
    population = Population(("next", "mirror", ""))
    accepted = 0
    for k, task in enumerate((SHARE, TASK, replace(TWO, reward="share"), TWO)):
        before = len(population.prompts)
        evolve = evolution("rotate", "next", "mirror", "reverse", contexts=2 + k % 2, validation=6)
        population, info = evolve.step(weights, population, task, rng)
        scored, problems = record.rounds[-1], record.validation[-1]
        contexts = list(dict.fromkeys(context for context, _ in scored))
        # a context is in the running once it was scored on all validation problems
        table = {
            c: [scored[c, uid][0] for uid in problems] for c in contexts if all((c, u) in scored for u in problems)
        }
        assert len(problems) == 6
        assert len(table) == info.metrics["fast_candidates"]
        assert list(population.prompts) == pareto(table, evolve.contexts)
        assert list(population.scores) == [pytest.approx(np.mean(table[name])) for name in population.prompts]
        assert 1 <= len(population.prompts) <= evolve.contexts
        accepted += len(table) > before
    assert accepted


@given(
    st.integers(1, 5),
    st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=5, max_size=5), min_size=1, max_size=7),
)
def test_the_front_in_plain_python(most: int, scores: list[list[float]]) -> None:
    """Any table: the same contexts in the same order; with room for all, every problem keeps one that is best on it."""
    table = {f"c{k}": row for k, row in enumerate(scores)}
    kept = module._keep(table, most)
    assert kept == pareto(table, most)
    assert len(set(kept)) == len(kept) <= most
    everything = module._keep(table, len(table))
    for j in range(5):
        assert max(table[name][j] for name in everything) == max(row[j] for row in scores)


def test_nothing_is_rolled_out_twice_and_every_rollout_is_counted(
    weights: Weights, record: Record, rng: np.random.Generator
) -> None:
    """Each pair of context and problem once a round, though GEPA asks for some of them again."""
    for prompts in (("",), ("", "next"), ("prev", "", "mirror")):
        record.encoded.clear()
        record.drawn = 0
        _, info = evolution().step(weights, Population(prompts), TASK, rng)
        assert max(Counter(record.encoded).values()) == 1
        assert record.drawn == len(record.encoded) == info.samples
        asked = sum(map(len, record.rounds[-1].values()))
        assert asked > record.drawn
        assert all(len(set(rewards)) == 1 for rewards in record.rounds[-1].values())


def test_problems_are_those_of_the_validation_split(weights: Weights, record: Record, rng: np.random.Generator) -> None:
    evolution().step(weights, Population(), TASK, rng)
    uids = {uid for _, uid in record.encoded}
    assert uids <= {p.uid for p in TASK.problems("validation")}
    # what a context is scored on is not what the reflector is shown
    shown = {uid for (_, uid), rewards in record.rounds[-1].items() if uid not in record.validation[-1] and rewards}
    assert shown
    assert len(set(record.validation[-1])) == 8


@pytest.mark.parametrize(
    "budget",
    [
        *(35, 50, 60, 101, 200),
        *(pytest.param(each, marks=pytest.mark.slow) for each in (36, 37, 43, 51, 59, 65, 80, 92, 128, 136)),
    ],
)
@pytest.mark.parametrize(
    "population", [Population(("",)), Population(("", "next", "prev"), archive=((TASK.name, "sort"),))]
)
def test_every_round_is_within_the_budget(
    budget: int, population: Population, weights: Weights, rng: np.random.Generator
) -> None:
    """Scoring the population again and what the reflector costs are part of it; a context that is begun can be scored."""
    evolve = evolution("sort", "next", "prev", "mirror", "pairs", "ends", rollout_budget=budget)
    _, info = evolve.step(weights, population, TASK, rng)
    assert info.samples <= budget
    assert info.metrics["fast_rollouts"] == info.samples
    assert info.metrics["fast_reflections"] > 0
    rest = budget - info.samples
    assert rest <= 2 * evolve.shown + 1 + evolve.validation  # nothing more was possible for sure


def test_a_budget_that_scoring_the_population_uses_up_is_refused() -> None:
    """Four contexts on eight problems each are 32 rollouts: with 20 a round, GEPA would never be asked."""
    with pytest.raises(InputError, match="budget"):
        PromptEvolution(contexts=4, validation=8, rollout_budget=20)


def test_a_population_that_solves_everything_is_left_alone(weights: Weights, record: Record) -> None:
    """No reflection where nothing is left to improve: only the population is scored again."""
    for seed in range(20):
        evolve = evolution(validation=2)
        record.drawn = 0
        population, info = evolve.step(weights, Population(("reverse", "next")), TASK, np.random.default_rng(seed))
        if info.metrics["fast_best"] == 1.0:
            assert population.prompts == ("reverse",)
            assert info.samples == record.drawn == 4
            assert evolve.reflector.shown == []
            return
    pytest.fail("the trained policy never solved two problems")


# --- rounds and weights ----------------------------------------------------------------------------------------------


def test_scores_are_measured_again_after_the_weights_moved(weights: Weights, rng: np.random.Generator) -> None:
    """A context that solved the task scores nothing on weights that lost it: an old score would still be high."""
    population, _ = evolution("reverse").step(weights, Population(), TASK, rng)
    assert population.prompts[0] == "reverse"
    assert population.scores[0] > 0.7
    with torch.no_grad():
        for parameter in weights.policy.model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=1.0)
    after, info = evolution("reverse").step(weights, population, TASK, rng)
    assert info.metrics["fast_best"] < 0.2
    assert max(after.scores) < 0.2
    assert info.samples > 0


def test_every_round_rolls_the_population_out_anew(weights: Weights, record: Record, rng: np.random.Generator) -> None:
    """Weights that stand still too: fresh problems, and every context of the population on all of them."""
    population = Population(("next", "reverse"))
    for _ in range(3):
        record.encoded.clear()
        before = population
        population, _ = evolution("next").step(weights, before, TASK, rng)
        uids = record.validation[-1]
        assert {(c, uid) for c in before.prompts for uid in uids} <= set(record.encoded)
    assert len({tuple(uids) for uids in record.validation}) == 3


def test_a_round_leaves_the_weights_alone(weights: Weights, rng: np.random.Generator) -> None:
    weights.policy.model.train()
    held = {name: value.clone() for name, value in weights.policy.model.state_dict().items()}
    before = Population(("next", ""), (0.1, 0.2), (("next", ""),))
    kept = copy.deepcopy(before)
    evolution().step(weights, before, TASK, rng)
    assert all(torch.equal(value, held[name]) for name, value in weights.policy.model.state_dict().items())
    assert all(p.grad is None for p in weights.policy.model.parameters())
    assert weights.policy.model.training
    assert before == kept


def test_the_lineage_of_what_is_kept_is_carried_on(weights: Weights, rng: np.random.Generator) -> None:
    """A context that stays in the population for rounds still says what it was once written from; no other is named."""
    population = Population(("reverse", "next"), (), (("reverse", "rotate"), ("sort", "")))
    after, _ = evolution("mirror").step(weights, population, TASK, rng)
    assert dict(after.lineage)["reverse"] == "rotate"
    assert {child for child, _ in after.lineage} <= set(after.prompts)


# --- tasks that come back ---------------------------------------------------------------------------------------------


def test_the_best_context_of_every_task_is_kept(weights: Weights, rng: np.random.Generator) -> None:
    """Over a switch: the archive has the best context of the last round on each task, the population that of the present one."""
    first, _ = evolution("reverse").step(weights, Population(), TASK, rng)
    assert first.archive == ((TASK.name, "reverse"),)
    other = RuleTask("strings", ("mirror",), size=3)
    second, _ = evolution("mirror").step(weights, first, other, rng)
    third, _ = evolution("next").step(weights, second, other, rng)
    assert third.prompts[0] == "mirror"
    assert dict(third.archive) == {TASK.name: "reverse", other.name: "mirror"}
    assert [name for name, _ in third.archive] == [TASK.name, other.name]


def test_a_task_that_comes_back_finds_its_context_again(
    weights: Weights, record: Record, rng: np.random.Generator
) -> None:
    """It is scored again with the population, on the weights as they are, and needs no reflection to be found."""
    away = Population(("mirror",), (1.0,), (), ((TASK.name, "reverse"), ("strings@3:mirror", "mirror")))
    evolve = evolution("next")
    back, info = evolve.step(weights, away, TASK, rng)
    assert back.prompts[0] == "reverse"
    assert back.scores[0] > 0.7
    assert {c for c, uid in record.encoded if uid in record.validation[-1]} >= {"mirror", "reverse"}
    assert info.samples == record.drawn
    assert dict(back.archive)[TASK.name] == "reverse"


def test_an_archived_context_that_lost_its_worth_is_not_kept(weights: Weights, rng: np.random.Generator) -> None:
    """Archived scores are not remembered: what does not work on these weights makes place."""
    away = Population(("reverse",), (1.0,), (), ((TASK.name, "mirror next"),))
    back, _ = evolution("next").step(weights, away, TASK, rng)
    assert back.prompts == ("reverse",)
    assert back.archive == ((TASK.name, "reverse"),)


def test_a_population_is_read_back_from_json() -> None:
    """With its archive; records from before there was one have none."""
    population = Population(("next", ""), (0.5, 0.25), (("next", ""),), (("strings:reverse", "reverse"),))
    held = json.loads(json.dumps(asdict(population)))
    assert Population.from_dict(held) == population
    del held["archive"]
    assert Population.from_dict(held) == replace(population, archive=())


# --- determinism -----------------------------------------------------------------------------------------------------


def test_a_round_is_a_function_of_its_generator(weights: Weights) -> None:
    """Global generators of Python, numpy and torch are neither used nor moved."""
    found = []
    for noise in (1, 2):
        random.seed(noise)
        np.random.seed(noise)  # noqa: NPY002 -- somebody else's
        torch.manual_seed(noise)
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
        rng = np.random.default_rng(7)
        population, info = evolution("next", "rotate", "reverse").step(weights, Population(), SHARE, rng)
        assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
        found.append((population, info, rng.bit_generator.state))
    assert found[0] == found[1]
    other = evolution("next", "rotate", "reverse").step(weights, Population(), SHARE, np.random.default_rng(8))
    assert other != found[0][:2]


def test_self_reflection_is_a_function_of_its_generator_too(weights: Weights) -> None:
    rounds = [
        replace(evolution(), reflector=SelfReflection()).step(
            weights, Population(("next", "")), SHARE, np.random.default_rng(3)
        )
        for _ in range(2)
    ]
    assert rounds[0] == rounds[1]


# --- what must not happen --------------------------------------------------------------------------------------------


def test_nothing_is_written_anywhere(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """No run directory, no pickle: not here, and not in the folder of temporary files."""
    (tmp_path / "here").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    evolution().step(weights, Population(), TASK, rng)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["here", "temporary"]


def test_gepa_is_asked_without_memory(
    weights: Weights, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """No cache and no run directory; an adapter that declares what GEPA looks for."""
    real, asked = module.optimize, []

    def watched(**settings: Any) -> Any:
        asked.append(settings)
        return real(**settings)

    monkeypatch.setattr(module, "optimize", watched)
    evolution().step(weights, Population(), TASK, rng)
    (settings,) = asked
    assert settings["cache_evaluation"] is False
    assert settings.get("run_dir") is None
    assert settings["adapter"].propose_new_texts is None
    assert settings["custom_candidate_proposer"] is not None


def test_rounds_are_silent(weights: Weights, capfd: pytest.CaptureFixture[str], rng: np.random.Generator) -> None:
    evolution().step(weights, Population(), TASK, rng)
    assert capfd.readouterr() == ("", "")


def test_a_context_too_long_for_the_model_scores_nothing(
    weights: Weights, record: Record, rng: np.random.Generator
) -> None:
    """Proposed, it is not taken and costs no rollout; in the population, it makes place for one that fits."""
    long = "reverse " * 80
    evolve = evolution(long, "reverse")
    population, info = evolve.step(weights, Population(), TASK, rng)
    assert population.prompts[0] == "reverse"
    assert long not in population.prompts
    assert info.samples == record.drawn
    assert {reward for (c, _), rewards in record.rounds[-1].items() if c == long for reward in rewards} == {0.0}
    after, _ = evolve.step(weights, Population((long, "reverse")), TASK, rng)
    assert long not in after.prompts


def test_the_slow_step_after_a_round_gets_contexts_that_fit(weights: Weights, rng: np.random.Generator) -> None:
    """Where nothing is solved every score is 0, and a context too long for this task's problems is as good as any."""
    fitted = "next " * 45  # on strings, not on star graphs, where this policy solves nothing
    task = RuleTask("star_graph", ("cross",))
    PolicyGradient(problems=2, rollouts=2).step(weights, Population((fitted,)), TASK, rng)
    population, _ = evolution("next").step(weights, Population(("next", fitted)), task, rng)
    PolicyGradient(problems=2, rollouts=2).step(weights, population, task, rng)
    assert population.prompts == ("next",)


def test_a_reflector_that_is_down_is_heard(weights: Weights, rng: np.random.Generator) -> None:
    """Not swallowed, and not asked again and again: the round ends with its message."""

    @dataclass
    class Down:
        calls: int = 0

        def propose(self, *_: Any) -> tuple[str, int]:
            self.calls += 1
            raise ReflectorDown("nobody there")

    reflector = Down()
    with pytest.raises(ReflectorDown, match="nobody there"):
        replace(evolution(), reflector=reflector).step(weights, Population(), TASK, rng)
    assert reflector.calls <= 2


def test_a_world_with_few_problems(weights: Weights, rng: np.random.Generator) -> None:
    """Strings of two letters have six validation problems: fewer than asked for, and still some for the reflector."""
    few = RuleTask("strings", ("reverse",), size=2)
    assert len(few.problems("validation")) < 8
    population, _ = evolution("reverse").step(weights, Population(), few, rng)
    assert 1 <= len(population.prompts) <= 3


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"contexts": 0}, "contexts"),
        ({"validation": 1}, "validation"),
        ({"shown": 0}, "shown"),
        ({"rollout_budget": 0}, "budget"),
        ({"rollout_budget": 15, "validation": 8}, "budget"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, int], says: str) -> None:
    with pytest.raises(InputError, match=says):
        PromptEvolution(**wrong)


# --- the adapter -----------------------------------------------------------------------------------------------------


def adapter(weights: Weights, rng: np.random.Generator, task: Any = TASK) -> PolicyAdapter:
    return PolicyAdapter(weights.policy, task, Scripted(["reverse"]), rng, max_new_tokens=4)


def test_the_adapter_evaluates_in_gepas_form(weights: Weights, rng: np.random.Generator) -> None:
    """One float an example in the order asked, repeated problems included; traces only on request."""
    one = adapter(weights, rng)
    problems = [*TASK.problems("validation")[:3], TASK.problems("validation")[0]]
    plain = one.evaluate(problems, {"context": "reverse"})
    traced = one.evaluate(problems, {"context": "reverse"}, capture_traces=True)
    assert isinstance(plain, EvaluationBatch)
    assert plain.trajectories is None
    assert plain.scores == traced.scores
    assert plain.outputs == traced.outputs
    assert plain.scores[0] == plain.scores[3]
    assert one.samples == 3
    for problem, text, reward in zip(problems, plain.outputs, plain.scores, strict=True):
        assert TASK.score(problem, text).reward == reward
    data = one.make_reflective_dataset({"context": "reverse"}, traced, ["context"])
    assert [entry["Inputs"] for entry in data["context"]] == [p.question for p in problems]
    assert one.propose({"context": "next"}, data, ["context"]) == {"context": "reverse"}
    assert one.reflections == 1


def test_the_adapter_never_raises_for_one_example(weights: Weights, rng: np.random.Generator) -> None:
    """Nonsense contexts, unknown letters, nothing at all: scores, all of them numbers."""
    one = adapter(weights, rng)
    problems = TASK.problems("validation")[:2]
    for context in ("", "\n", "žluťoučký kůň", "| ABC =", "= = = =", "<eos>", "x" * 5000, "reverse " * 500):
        batch = one.evaluate(list(problems), {"context": context})
        assert all(isinstance(score, float) and 0.0 <= score <= 1.0 for score in batch.scores)


# --- the shipped model -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not list(shipped_path().glob("*.safetensors")), reason="no base model is shipped yet")
def test_the_shipped_model_finds_a_hidden_rule_by_itself() -> None:
    """The whole channel without a script: the policy writes rules from feedback, GEPA keeps those that work."""
    policy = Policy.load()
    weights = Weights(policy, policy, torch.optim.AdamW(policy.model.parameters()))
    task, rng, population = RuleTask("strings", ("rotate",)), np.random.default_rng(0), Population()
    for _ in range(3):
        population, info = PromptEvolution().step(weights, population, task, rng)
    # other words may say the same: what counts is what they do
    for start in ("ABCDE", "HGABC", "ABABD"):
        assert STRINGS.apply(population.prompts[0].split(), tuple(start)) == STRINGS.apply(["rotate"], tuple(start))
    assert population.scores[0] > 0.8
    assert info.samples <= 192 + 2 * 6 + 2 + 16


def test_a_round_without_a_usable_proposal_says_so(weights: Weights, rng: np.random.Generator) -> None:
    """It keeps its contexts, goes on within its budget, and hands over how often and why."""

    class Refusing:
        def propose(self, *_: object) -> tuple[str, int]:
            return context_from("I'm sorry, but I cannot do that.", "", 1), 1

    round_ = replace(evolution(), reflector=Refusing())
    population, info = round_.step(weights, Population(), TASK, rng)
    assert population.prompts == ("",)
    assert info.metrics["fast_unusable"] == info.metrics["fast_reflections"] > 0
    assert set(info.metrics[UNUSABLE]) == {'a refusal: "I\'m sorry, but I cannot do that."'}
    assert len(info.metrics[UNUSABLE]) == info.metrics["fast_unusable"]
    _, fine = evolution().step(weights, Population(), TASK, np.random.default_rng(0))
    assert not {"fast_unusable", UNUSABLE} & set(fine.metrics)


def test_a_policy_outside_of_the_world_writes_in_words(weights: Weights, rng: np.random.Generator) -> None:
    """It is asked in plain words, and may write what no rule of the world says."""
    policy = replace(weights.policy, template="plain")
    asked: list[str] = []

    def wrote(text: str) -> Policy:
        other = replace(policy)
        object.__setattr__(other, "encode_text", lambda message: asked.append(message) or [1, 2])
        object.__setattr__(other, "sample", lambda *_, **__: None)  # its 64 positions are too few for what it writes
        object.__setattr__(other, "decode", lambda rollouts: [text])  # noqa: ARG005
        return other

    records = [{"Inputs": f"q{k}", "Generated Outputs": "x", "Feedback": "wrong. right: y"} for k in range(9)]
    text, cost = SelfReflection().propose(wrote("<think>?</think>Answer like this: y"), "say x", records, rng)
    assert (text, cost) == ("Answer like this: y", 1)
    assert "The student had this instruction: say x" in asked[0]
    assert asked[0].count("Question: q") == 4
    with pytest.raises(UnusableProposal, match="an empty text"):
        SelfReflection().propose(wrote(""), "", records, rng)
    with pytest.raises(UnusableProposal, match="do not fit the model's 64 positions"):
        SelfReflection().propose(policy, "", records, rng)


def test_the_least_budget_scores_the_population_and_one_new_context() -> None:
    """Contexts x validation, validation again and the rollouts that show how a context fails: one less is refused."""
    settings = {"contexts": 3, "validation": 8, "shown": 3}
    with pytest.raises(InputError, match=r"at least (\d+) rollouts: contexts x validation = 24 to score") as refused:
        PromptEvolution(rollout_budget=2, **settings)
    least = int(str(refused.value).split("at least ")[1].split()[0])
    assert 3 * 8 + 8 < least <= 3 * 8 + 8 + 3 + 1
    PromptEvolution(rollout_budget=least, **settings)
    with pytest.raises(InputError, match="at least"):
        PromptEvolution(rollout_budget=least - 1, **settings)
