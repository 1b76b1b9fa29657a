"""Probes against exact enumeration of all completions, against frequencies of samples, and against plain Python.

The reference for sequences is a tree: the probability of every completion of up to three tokens, from forward passes of
transformers over whole sequences without cache, padding or sharing.
"""

from __future__ import annotations

import copy
import dataclasses
import statistics
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from fstsim.errors import InputError
from fstsim.llm.learners.sft import SupervisedFineTuning
from fstsim.llm.learners.weights import Weights
from fstsim.llm.policy.policy import Policy
from fstsim.llm.pretraining.exam import Exam
from fstsim.llm.runs.behaviour import answer_logprobs, mean_se, sequence_kl
from fstsim.llm.runs.probes import Probe, ProbeConfig
from fstsim.llm.runs.relearning import relearn_steps
from fstsim.llm.runs.skills import old_skills
from fstsim.llm.tasks.rules import RuleTask
from fstsim.llm.types import Population, Problem

MakePolicy = Callable[..., Policy]
Array = np.ndarray

MANY = 4.5  # standard errors: correct code fails with probability below 1e-5
CLOSE = 1e-4  # float32 against float64 on sums of a few log-probabilities of size 10

REVERSE = RuleTask("strings", ("reverse",), size=2)
NEXT = RuleTask("strings", ("next",), size=2)
SMALL = ProbeConfig(every=1, problems=64, exam=2, max_new_tokens=2)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the reference ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def next_logprobs(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Array:
    """Log-probabilities of the next token after each row (all of one length), float64, ``(rows, V)``."""
    parts = torch.tensor(rows).split(1024)
    logits = [model(part, use_cache=False).logits[:, -1] for part in parts]
    return torch.log_softmax(torch.cat(logits).double(), -1).numpy()


def completions(policy: Policy, prompt: Sequence[int], longest: int) -> dict[tuple[int, ...], float]:
    """Log-probability of every completion of at most ``longest`` tokens: ended by the end token, or cut off."""
    (end,) = policy.end_tokens
    done: dict[tuple[int, ...], float] = {}
    alive: dict[tuple[int, ...], float] = {(): 0.0}
    for depth in range(longest):
        after = next_logprobs(policy.model, [[*prompt, *text] for text in alive])
        grown = {
            (*text, token): before + row[token]
            for (text, before), row in zip(alive.items(), after, strict=True)
            for token in range(len(row))
        }
        cut = depth + 1 == longest
        done |= {text: logp for text, logp in grown.items() if cut or text[-1] == end}
        alive = {text: logp for text, logp in grown.items() if not cut and text[-1] != end}
    return done


def exact_kl(p: dict[tuple[int, ...], float], q: dict[tuple[int, ...], float]) -> float:
    """KL(p || q) by its definition: a sum over all completions."""
    assert p.keys() == q.keys()
    return sum(np.exp(logp) * (logp - q[text]) for text, logp in p.items())


def test_the_reference_is_a_distribution(make_policy: MakePolicy) -> None:
    policy = make_policy()
    for longest in (1, 2):
        every = completions(policy, policy.encode("next", Problem("strings", "AB", "")), longest)
        assert sum(np.exp(list(every.values()))) == pytest.approx(1.0, abs=1e-9)
        assert len(every) == (64 if longest == 1 else 63 * 64 + 1)


# --- KL --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_sequence_kl_has_the_exact_kl_as_its_mean(make_policy: MakePolicy, longest: int) -> None:
    """Both directions, over all completions of up to 64³ tokens; the other direction would be seen."""
    # small weights at three tokens: fewer nats, so that the completions that matter are all drawn
    spread = {"initializer_range": 0.3 if longest < 3 else 0.15}
    one, other = make_policy(seed=0, **spread), make_policy(seed=1, **spread)
    prompt = one.encode("reverse", Problem("strings", "ABCDE", ""))
    trees = [completions(policy, prompt, longest) for policy in (one, other)]
    exact = [exact_kl(trees[0], trees[1]), exact_kl(trees[1], trees[0])]
    for k, (p, q) in enumerate([(one, other), (other, one)]):
        drawn = p.sample([prompt], 4000, seeded(k), max_new_tokens=longest)
        values = sequence_kl(p, q, drawn)
        if longest == 1:  # one prompt, one token: nothing is left to chance
            np.testing.assert_allclose(values, exact[k], rtol=1e-5)
            error = 1e-4 * exact[k]
        else:
            error = values.std(ddof=1) / np.sqrt(len(values))
        assert abs(values.mean() - exact[k]) <= MANY * error
        assert abs(values.mean() - exact[1 - k]) > 2.0 * MANY * error


def test_sequence_kl_of_every_completion_is_the_sum_over_its_own_tokens(make_policy: MakePolicy) -> None:
    """Prompts and completions of different lengths, more than one block: padding adds nothing."""
    p, q = make_policy(seed=0), make_policy(seed=1)
    shown = [("", "AB"), ("reverse rotate", "HGFED"), ("next", "ABCAB")]
    prompts = [p.encode(context, Problem("strings", text, "")) for context, text in shown]
    drawn = p.sample(prompts, [100, 150, 50], seeded(3), max_new_tokens=6)
    assert len(set(drawn.mask.sum(-1).tolist())) > 2
    values = sequence_kl(p, q, drawn)
    assert values.shape == (300,)
    for i in [0, 1, 2, 99, 100, 249, 250, 255, 256, 299]:
        prompt, wrote = prompts[int(drawn.prompt_of[i])], drawn.completions[i][drawn.mask[i]].tolist()
        expected = 0.0
        for t in range(len(wrote)):
            logp, logq = (next_logprobs(each.model, [[*prompt, *wrote[:t]]])[0] for each in (p, q))
            expected += float((np.exp(logp) * (logp - logq)).sum())
        assert values[i] == pytest.approx(expected, rel=1e-4, abs=CLOSE)


def test_probe_kl_and_entropy_agree_with_enumeration(make_policy: MakePolicy) -> None:
    """On every held-out problem, contexts in turn; directions, and values in context and without it, are told apart."""
    base, now = (
        make_policy(seed=0, initializer_range=0.05),
        make_policy(seed=1),
    )  # flat and peaked: KL far from symmetric
    contexts = ("next", "reverse rotate")
    probe = Probe(base, REVERSE, SMALL, seed=11)
    row = probe.measure(now, Population(contexts))
    problems = REVERSE.problems("test")
    n = len(problems)
    assert 4 <= n <= 64
    for tail, shown in [("", contexts), ("_no_context", ("",))]:
        to_base, from_base, entropy = [], [], []
        for i, problem in enumerate(problems):
            prompt = now.encode(shown[i % len(shown)], problem)
            here, start = completions(now, prompt, 2), completions(base, prompt, 2)
            to_base.append(exact_kl(here, start))
            from_base.append(exact_kl(start, here))
            entropy.append(-sum(np.exp(logp) * logp for logp in here.values()))
        exact = {"kl_to_base": to_base, "kl_from_base": from_base, "entropy": entropy}
        for name, values in exact.items():
            # the standard error over problems also holds how they differ: on fixed problems it is too large, never too small
            assert abs(row[f"{name}{tail}"] - np.mean(values)) <= MANY * row[f"{name}{tail}_se"], name
    # 12 seeds shrink the error until one direction cannot pass for the other
    means = []
    for seed in range(12):
        again = Probe(base, REVERSE, SMALL, seed=seed).measure(now, Population())
        means.append((again["kl_to_base"], again["kl_from_base"]))
    error = np.std(means, axis=0, ddof=1) / np.sqrt(len(means))
    exact_means = np.array([np.mean(to_base), np.mean(from_base)])
    t_bound = 9.0  # a t distribution of 11 degrees of freedom exceeds it with probability 2e-6
    assert (np.abs(np.mean(means, axis=0) - exact_means) <= t_bound * error).all()
    assert (np.abs(np.mean(means, axis=0) - exact_means[::-1]) > t_bound * error).all()  # what a swap would give


def test_kl_a_token_is_nats_over_tokens(make_policy: MakePolicy) -> None:
    """All nats of the sample over all its tokens, and not a mean of ratios; the sample is that of the probe's seed."""
    base, now = make_policy(seed=0), make_policy(seed=1)
    config = dataclasses.replace(SMALL, max_new_tokens=5)
    row = Probe(base, REVERSE, config, seed=4).measure(now, Population())
    prompts = [now.encode("", problem) for problem in REVERSE.problems("test")]
    for name, policy in [("kl_to_base", now), ("kl_from_base", base)]:
        drawn = policy.sample(prompts, 1, seeded(4), max_new_tokens=5)
        assert row[f"{name}_token"] == pytest.approx(row[name] * len(prompts) / int(drawn.mask.sum()), rel=1e-9)


@pytest.mark.parametrize("prompts", [("",), ("next",), ("reverse", "", "next rotate")])
def test_at_the_start_every_distance_is_exactly_zero(make_policy: MakePolicy, prompts: tuple[str, ...]) -> None:
    base = make_policy(seed=0)
    now = Policy.of(copy.deepcopy(base.model), base.tokenizer)
    row = Probe(base, REVERSE, SMALL, skills=old_skills(base, (), SMALL, 0)).measure(now, Population(prompts))
    zero = [name for name in row if name.startswith(("kl_", "drift"))]
    assert {"kl_to_base", "kl_from_base", "kl_to_base_token", "kl_from_base_token", "drift", "drift_nll"} <= set(zero)
    # how far behaviour is from the base without context is 0 where there is none
    told = {name for name in zero if prompts != ("",) and name.startswith(("kl_deployed", "kl_excess"))}
    assert {name: row[name] for name in zero if name not in told} == dict.fromkeys(set(zero) - told, 0.0)
    assert all(row[name] > 0.0 for name in told)


# --- probabilities of answers ----------------------------------------------------------------------------------------


def test_answer_probabilities_agree_with_enumeration(make_policy: MakePolicy) -> None:
    """Every answer of one or two letters, end token included, in two contexts; more than one block of them."""
    policy = make_policy()
    letters = "ABCDEFGH"
    answers = ["", *letters, *(a + b for a in letters for b in letters)]
    contexts = ["", "reverse"]
    for text in ("AB", "HGFE"):
        problem = Problem("strings", text, "")
        found = answer_logprobs(policy, contexts, [problem] * len(answers) * 2, answers * 2)
        assert found.shape == (2, 2 * len(answers))
        for row, context in zip(found, contexts, strict=True):
            every = completions(policy, policy.encode(context, problem), 3)
            ids = policy.tokenizer.convert_tokens_to_ids
            expected = [every[(*(ids(c) for c in answer), *policy.end_tokens)] for answer in answers]
            np.testing.assert_allclose(row, expected * 2, rtol=0.0, atol=CLOSE)


def test_answers_of_different_problems_keep_their_places(make_policy: MakePolicy) -> None:
    """Contexts by problems: each number is that of its own pair, whatever stands beside it."""
    policy = make_policy()
    problems = [
        Problem("strings", "AB", ""),
        Problem("digits", "12345", ""),
        Problem("star_graph", "QJ;WL;WP;PN:J", ""),
    ]
    answers = ["BA", "54321", "JQ"]
    contexts = ["next", "", "forward up"]
    together = answer_logprobs(policy, contexts, problems, answers)
    for i, context in enumerate(contexts):
        for j in range(3):
            alone = answer_logprobs(policy, [context], [problems[j]], [answers[j]])
            assert alone[0, 0] == pytest.approx(together[i, j], abs=CLOSE)
    assert len(set(together.ravel().round(3).tolist())) == 9


Teach = Callable[..., Policy]


@pytest.fixture(scope="module")
def taught(make_policy: MakePolicy) -> Teach:
    """``taught(steps, replay)``: a tiny policy shown NEXT without context, or its old behaviour for a share of the time."""
    held: dict[tuple[int, float], Policy] = {}

    def teach(steps: int, replay: float = 0.0) -> Policy:
        if (steps, replay) not in held:
            policy = make_policy(initializer_range=0.05)
            weights = Weights(policy, policy, torch.optim.AdamW(policy.model.parameters(), lr=1e-2))
            rng = np.random.default_rng(0)
            for _ in range(steps):
                SupervisedFineTuning(24, replay).step(weights, Population(), NEXT, rng)
            held[steps, replay] = policy
        policy = held[steps, replay]
        return Policy.of(copy.deepcopy(policy.model), policy.tokenizer)

    return teach


def test_reward_and_old_mass_are_the_frequencies_of_samples(taught: Teach) -> None:
    """What is computed without sampling is what sampling would find."""
    policy = taught(60, 0.5)
    # room for the answer and its end token: a completion that is cut off cannot be right by accident
    config = dataclasses.replace(SMALL, max_new_tokens=4)
    contexts = ("", "next", "rotate mirror")
    row = Probe(policy, NEXT, config).measure(policy, Population(contexts))
    problems, n = list(NEXT.problems("test")), 2000
    right: dict[str, Array] = {}
    for k, context in enumerate(contexts):
        drawn = policy.sample([policy.encode(context, p) for p in problems], n, seeded(k), max_new_tokens=4)
        ended = torch.isin(drawn.completions, torch.tensor(policy.end_tokens)).any(-1).view(len(problems), n).numpy()
        texts = np.array(["".join(t.split()) for t in policy.decode(drawn)]).reshape(len(problems), n)
        for name, answer in [("reward", NEXT.answer), ("old_mass", NEXT.old_answer)]:
            hits = (texts == np.array([[answer(p)] for p in problems])) & ended
            right[f"{name}:{context}"] = hits.mean(1)

    def agrees(value: float, *frequencies: Array) -> None:
        table = np.stack(frequencies)
        error = np.sqrt((table * (1.0 - table) / n).sum()) / table.size
        assert 0.02 < value < 0.98  # or the test would see little
        assert abs(value - table.mean()) <= MANY * error

    agrees(row["reward"], right["reward:"])
    agrees(row["reward_all_contexts"], *(right[f"reward:{context}"] for context in contexts))
    agrees(row["reward_no_context"], right["reward:"])
    agrees(row["old_mass"], right["old_mass:"])
    alone = [Probe(policy, NEXT, config).measure(policy, Population((context,)))["reward"] for context in contexts]
    assert row["reward_all_contexts"] == pytest.approx(np.mean(alone), abs=1e-6)
    assert row["reward"] == pytest.approx(alone[0], abs=1e-6)


def test_which_columns_a_population_has(make_policy: MakePolicy) -> None:
    """Only what can differ is measured twice: one context has no mean over contexts, the empty one no twin without context."""
    policy = make_policy()
    probe = Probe(policy, REVERSE, SMALL)
    empty, one, two = (set(probe.measure(policy, Population(p))) for p in [("",), ("next",), ("next", "")])
    assert "reward_all_contexts" not in empty | one
    assert {"reward_no_context", "kl_to_base_no_context", "entropy_no_context"} <= one - empty
    assert two - one == {"reward_all_contexts", "reward_all_contexts_se"}
    for columns in (empty, one, two):
        measured = {"reward", "old_mass", "kl_to_base", "kl_from_base", "entropy"}
        assert measured | {f"{name}_se" for name in measured} <= columns


def test_rewards_that_are_not_exact_are_those_of_the_samples(taught: Teach) -> None:
    """A task paid by the share of right symbols: one sample a problem, contexts in turn, always the same random numbers."""
    policy = taught(60, 0.5)
    task = RuleTask("strings", ("next",), "share", size=2)
    contexts = ("", "next")
    row = Probe(policy, task, dataclasses.replace(SMALL, max_new_tokens=4), seed=3).measure(
        policy, Population(contexts)
    )
    problems = task.problems("test")
    prompts = [policy.encode(contexts[i % 2], p) for i, p in enumerate(problems)]
    texts = policy.decode(policy.sample(prompts, 1, seeded(3), max_new_tokens=4))
    rewards = [task.score(p, text).reward for p, text in zip(problems, texts, strict=True)]
    assert 0.0 < statistics.fmean(rewards) < 1.0
    assert row["reward_all_contexts"] == pytest.approx(statistics.fmean(rewards), rel=1e-12)
    assert row["reward_all_contexts_se"] == pytest.approx(statistics.stdev(rewards) / len(rewards) ** 0.5, rel=1e-12)


def test_standard_errors_are_over_problems(taught: Teach) -> None:
    policy = taught(60, 0.5)
    row = Probe(policy, NEXT, SMALL).measure(policy, Population())
    problems = NEXT.problems("test")
    for name, answer in [("reward", NEXT.answer), ("old_mass", NEXT.old_answer)]:
        each = np.exp(answer_logprobs(policy, [""], problems, [answer(p) for p in problems]))[0].tolist()
        assert row[name] == pytest.approx(statistics.fmean(each), rel=1e-6)
        assert row[f"{name}_se"] == pytest.approx(statistics.stdev(each) / len(each) ** 0.5, rel=1e-5)
    values = np.array([0.2, 0.9, 0.4])
    assert mean_se(values) == pytest.approx((0.5, statistics.stdev(values.tolist()) / 3**0.5))


# --- old skills ------------------------------------------------------------------------------------------------------


def test_drift_is_the_accuracy_lost_and_the_nll_gained(make_policy: MakePolicy) -> None:
    """Against two exams sat apart; every family and number of rules counts the same."""
    base, now = make_policy(seed=0), make_policy(seed=1)
    row = Probe(base, REVERSE, SMALL, skills=old_skills(base, (), SMALL, 0)).measure(now, Population())
    before, after = (Exam.of_world(base.tokenizer, problems=2).sit(each.model) for each in (base, now))
    names = [f"accuracy_{family}_{depth}" for family in ("strings", "digits", "star_graph") for depth in (1, 2, 3)]
    assert row["drift"] == pytest.approx(np.mean([before[name] - after[name] for name in names]), abs=1e-12)
    assert row["drift_nll"] == pytest.approx(after["nll"] - before["nll"], abs=1e-9)
    assert abs(row["drift_nll"]) > 0.01
    after = {name: value for name, value in after.items() if not name.startswith("reflection")}  # too dear for a probe
    assert {name: row[name] for name in after} == after


# --- a probe changes nothing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_a_measurement_leaves_no_trace_and_repeats(make_policy: MakePolicy, training: bool) -> None:
    base, now = make_policy(seed=0), make_policy(seed=1)
    now.model.train(training)
    held = {name: value.clone() for name, value in now.model.state_dict().items()}
    state = torch.get_rng_state()
    probe = Probe(base, REVERSE, SMALL, seed=5)
    first = probe.measure(now, Population(("next", "")))
    assert now.model.training is training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, held[name]) for name, value in now.model.state_dict().items())
    assert all(p.grad is None for p in now.model.parameters())
    assert probe.measure(now, Population(("next", ""))) == first
    assert Probe(base, REVERSE, SMALL, seed=5).measure(now, Population(("next", ""))) == first


def test_the_number_of_problems_is_as_asked(make_policy: MakePolicy) -> None:
    """Always the first of the test split: rows of different runs speak of the same problems."""
    policy = make_policy()
    task = RuleTask("strings", ("reverse",), size=2)
    few = Probe(policy, task, dataclasses.replace(SMALL, problems=3))
    problems = task.problems("test")[:3]
    each = np.exp(answer_logprobs(policy, [""], problems, [task.answer(p) for p in problems]))[0]
    assert few.measure(policy, Population())["reward"] == pytest.approx(each.mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"every": 0}, "at least 1"),
        ({"problems": 1}, "at least 2"),
        ({"problems": 0}, "at least 1"),
        ({"exam": 0}, "at least 1"),
        ({"max_new_tokens": -1}, "at least 1"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, int], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ProbeConfig(**wrong)


# --- relearning ------------------------------------------------------------------------------------------------------


def test_relearning_takes_fewer_steps_the_more_is_known(taught: Teach) -> None:
    """None for a policy that solves the task, more for a half-taught one, most for one that never saw it."""
    steps = [relearn_steps(taught(shown), NEXT, lr=1e-2, batch=24, most=100) for shown in (0, 20, 150)]
    assert steps[2] == 0 < steps[1] < steps[0] <= 100


def test_relearning_counts_the_steps_that_a_plain_loop_needs(taught: Teach) -> None:
    """The number of updates after which the mean probability of the right answer first reaches the level."""
    policy = taught(20)
    found = relearn_steps(policy, NEXT, level=0.4, lr=1e-2, batch=24)
    learner = Policy.of(copy.deepcopy(policy.model), policy.tokenizer)
    weights = Weights(learner, policy, torch.optim.AdamW(learner.model.parameters(), lr=1e-2, weight_decay=0.0))
    problems = NEXT.problems("test")[:32]
    rng, levels = np.random.default_rng(0), []
    for _ in range(found + 1):
        each = answer_logprobs(learner, [""], problems, [NEXT.answer(p) for p in problems])
        levels.append(np.exp(each).mean())
        SupervisedFineTuning(24).step(weights, Population(), NEXT, rng)
    assert max(levels[:-1]) < 0.4 <= levels[-1]


def test_relearning_trains_a_copy_and_gives_up_in_time(make_policy: MakePolicy) -> None:
    policy = make_policy()
    held = {name: value.clone() for name, value in policy.model.state_dict().items()}
    assert relearn_steps(policy, NEXT, most=2) == 3
    assert relearn_steps(policy, NEXT, most=0) == 1
    assert all(torch.equal(value, held[name]) for name, value in policy.model.state_dict().items())
    assert all(p.grad is None for p in policy.model.parameters())


@pytest.mark.parametrize(
    ("early", "expected"), [(2, [1, 2, 4, 8, 16, 20, 40]), (4, [1, 4, 16, 20, 40]), (5, [1, 5, 20, 40])]
)
def test_the_beginning_is_measured_in_powers(early: int, expected: list[int]) -> None:
    config = ProbeConfig(every=20, early=early)
    assert [step for step in range(1, 41) if config.due(step)] == expected


def test_powers_start_at_two() -> None:
    with pytest.raises(InputError, match="probe early must be at least 2, got 1"):
        ProbeConfig(early=1)


def test_relearning_from_the_same_weights_is_measured_once(
    make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy has the same answer without a step; other weights, another task and other settings are measured anew."""
    made: list[int] = []
    step = SupervisedFineTuning.step

    def counted(self: SupervisedFineTuning, *given: object) -> object:
        made.append(1)
        return step(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(SupervisedFineTuning, "step", counted)
    policy = make_policy(seed=5)
    assert relearn_steps(policy, NEXT, most=2) == 3
    assert len(made) == 2  # the last of them is followed by a look, not by a step
    assert relearn_steps(Policy.of(copy.deepcopy(policy.model), policy.tokenizer), NEXT, most=2) == 3
    assert len(made) == 2
    with torch.no_grad():
        next(policy.model.parameters()).view(-1)[0] += 1e-3
    for given in ({"most": 2}, {"most": 1}, {"most": 2, "lr": 1e-2}):
        before = len(made)
        relearn_steps(policy, NEXT, **given)  # type: ignore[arg-type]
        assert len(made) > before
    before = len(made)
    relearn_steps(policy, REVERSE, most=2)
    assert len(made) > before


def test_what_is_kept_of_the_base_changes_no_bit(make_policy: MakePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    base, now = make_policy(seed=0), make_policy(seed=1)
    found = []
    for most in (1 << 23, 0):
        monkeypatch.setattr("fstsim.llm.runs.behaviour._KEPT", most)
        probe = Probe(base, REVERSE, SMALL, seed=3)
        found.append([probe.measure(now, Population(contexts)) for contexts in (("",), ("next", "reverse"), ("",))])
    assert found[0] == found[1]
    assert found[0][0] == found[0][2]
