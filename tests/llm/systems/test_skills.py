"""Skill library: what enters, what is found, what is composed; executed by the world and by the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

import fstsim.llm.learners.skills as learning
from fstsim.errors import InputError
from fstsim.llm.learners.skills import SkillLibrary
from fstsim.llm.policy.policy import Policy
from fstsim.llm.systems.curriculum import next_practice, pairs_of, pool
from fstsim.llm.systems.library import Library, Skill, behaviour, matched, run_program
from fstsim.llm.systems.measure import answer_scores, deployed_kl
from fstsim.llm.systems.plans import Pair
from fstsim.llm.systems.skills import Goal, Skills
from fstsim.llm.systems.system import Bare
from fstsim.llm.systems.weights import SystemWeights
from fstsim.llm.tasks.families import FAMILIES
from fstsim.llm.tasks.parse import parse_task
from fstsim.llm.tasks.rules import RuleTask
from fstsim.llm.types import Answered, Population, Problem

HALF, WHOLE = ("sort", "next"), ("sort", "next", "rotate", "mirror")


@pytest.fixture(scope="module")
def base() -> Policy:
    policy = Policy.load()
    policy.model.requires_grad_(False)
    return policy


def attempts(base: Policy, system: Skills, learner: SkillLibrary, task: Answered, steps: int, seed: int = 0) -> None:
    weights = SystemWeights(base, base, torch.optim.SGD([torch.zeros(0)], lr=1.0), 1.0, system=system)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        learner.step(weights, Population(), task, rng)


def stored(base: Policy, *programs: tuple[str, ...], family: str = "strings") -> Skills:
    system = Skills(base)
    for program in programs:
        system.library.store(Skill(family, program, "given", right=True))
    return system


def test_a_wrong_program_never_enters(base: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that is wrong a hundred times, by one rule more, less or another; without the gate its first program is stored."""
    task, right = RuleTask("strings", ("pairs", "next")), behaviour("strings", ("pairs", "next"))
    rng, wrote = np.random.default_rng(0), []

    def corrupted(*asked: object) -> list[str]:
        shown: Sequence[Sequence[Pair]] = asked[1]  # type: ignore[assignment]
        programs = []
        while len(programs) < len(shown):
            words = [str(w) for w in rng.choice(list(FAMILIES["strings"].rules), size=int(rng.integers(1, 4)))]
            if behaviour("strings", tuple(words)) != right:
                programs.append(" ".join(words))
        wrote.extend(programs)
        return programs

    monkeypatch.setattr(learning, "write_plans", corrupted)
    system = Skills(base)
    attempts(base, system, SkillLibrary(), task, 25)
    assert len(wrote) == 100
    assert not system.library.skills
    assert not system.goals["strings"].solved
    ungated = Skills(base)
    attempts(base, ungated, SkillLibrary(no_gate=True), task, 1)
    assert [skill.right for skill in ungated.library.skills] == [False]
    assert ungated.goals["strings"].solved


class Moved(RuleTask):
    """Problems of the train split ask for another rule than those that verify: what was shown cannot be what decides."""

    def answer(self, problem: Problem) -> str:
        train = {p.uid for p in self.problems("train")}
        return super().answer(problem) if problem.uid in train else RuleTask("strings", ("next",)).answer(problem)


def writes(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """A writer that writes one program, whatever it is shown."""
    monkeypatch.setattr(learning, "write_plans", lambda _policy, shown, _rng: [program] * len(shown))


def test_what_was_shown_does_not_verify(base: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is right on every train problem, and wrong on those of the split that verifies, never enters."""
    writes(monkeypatch, "sort")
    system = Skills(base)
    attempts(base, system, SkillLibrary(), Moved("strings", ("sort",)), 4)
    assert not system.library.skills
    attempts(base, system, SkillLibrary(), RuleTask("strings", ("sort",)), 1)
    assert [skill.program for skill in system.library.skills] == [("sort",)]


def test_nearly_right_is_not_right(base: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """One symbol that is wrong on one of the problems that verify is enough."""

    class Once(RuleTask):
        def answer(self, problem: Problem) -> str:
            right = super().answer(problem)
            odd = problem.uid == self.problems("validation")[0].uid
            return ("A" if right[0] != "A" else "B") + right[1:] if odd else right

    task = Once("strings", ("sort",))
    writes(monkeypatch, "sort")
    system = Skills(base)
    everything = len(task.problems("validation"))
    attempts(base, system, SkillLibrary(verified=everything), task, 2)
    assert not system.library.skills


def test_the_empty_skill_is_always_a_beginning(base: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a library of other skills a program that must begin from nothing is still found."""
    writes(monkeypatch, "sort next")
    system = stored(base, ("rotate",), ("mirror",), ("reverse",))
    attempts(base, system, SkillLibrary(), RuleTask("strings", ("sort", "next")), 1)
    assert system.goals["strings"].solved
    assert ("sort", "next") in [skill.program for skill in system.library.skills]


@pytest.mark.parametrize("family", ["strings", pytest.param("digits", marks=pytest.mark.slow), "star_graph"])
def test_fresh_examples_find_their_skill_first_and_shuffled_keys_do_not(base: Policy, family: str) -> None:
    """Over the whole pool of programs with one and two rules: a skill that does what is shown comes first, always."""
    library = Library([Skill(family, task.rules, task.name, right=True) for task in pool(family, base.words)])
    rng = np.random.default_rng(1)
    keys = rng.permutation(len(library.skills)).tolist()
    first, shuffled = [], []
    for skill in library.skills[:: max(3, len(library.skills) // 6)]:
        pairs = pairs_of(RuleTask(family, skill.program), rng, 4)
        ((near, cosine),) = library.near(base, family, pairs, 1)
        assert cosine == pytest.approx(1.0, abs=1e-5)
        first.append(matched(family, near.program, pairs) == 1.0)
        ((other, _),) = library.near(base, family, pairs, 1, keys)
        shuffled.append(behaviour(family, other.program) == behaviour(family, skill.program))
    assert np.mean(first) == 1.0
    assert np.mean(shuffled) < 0.25


def test_two_programs_with_one_behaviour_are_one_skill() -> None:
    library = Library()
    assert library.store(Skill("strings", ("reverse", "reverse", "next"), "one", right=True))
    assert not library.store(Skill("strings", ("next",), "other", right=True))
    assert [(skill.program, skill.learned_on) for skill in library.skills] == [(("next",), "one")]
    assert library.store(Skill("digits", ("flip",), "third", right=True))


def test_a_depth_four_task_needs_its_half(base: Policy) -> None:
    """The same ten attempts: solved with the half in the library, not without, nor where the library is no beginning."""
    task = RuleTask("strings", WHOLE)
    for system, learner, solved in (
        (stored(base, HALF), SkillLibrary(), True),
        (stored(base), SkillLibrary(), False),
        (stored(base, HALF), SkillLibrary(no_library=True), False),
    ):
        attempts(base, system, learner, task, 8)
        assert system.goals["strings"].solved == solved
    assert behaviour("strings", WHOLE) in [
        behaviour("strings", s.program) for s in stored(base, HALF, WHOLE).library.skills
    ]


def test_weights_stay_and_a_solved_task_is_answered(base: Policy) -> None:
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    task = RuleTask("strings", ("sort",))
    system = Skills(base)
    attempts(base, system, SkillLibrary(), task, 3)
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())
    asked = [("", p) for p in task.problems("test")[:4]]
    digits = [("", p) for p in RuleTask("digits", ("plus",)).problems("test")[:2]]
    answers = [task.answer(p) for _, p in asked]
    logps, greedy = answer_scores(system, asked, answers)
    np.testing.assert_array_equal(logps, 0.0)
    assert greedy.all()
    assert system.program("digits") is None
    shown = base.forced(base.encode_all(digits), [base.encode_answer("12345")] * 2)
    torch.testing.assert_close(system.logits(digits, shown), Bare(base).logits(digits, shown))
    kl, entropy = deployed_kl(system, Bare(base), (asked, asked), 0, 8)
    np.testing.assert_allclose(kl, -answer_scores(Bare(base), asked, answers)[0], rtol=1e-4)  # of a point mass
    assert not entropy.any()
    assert np.isinf(deployed_kl(Bare(base), system, (asked, asked), 0, 8)[0]).all()


def test_both_executions_are_told(base: Policy) -> None:
    task = RuleTask("strings", WHOLE)
    system = stored(base, WHOLE)
    system.goals["strings"] = Goal(task.name, tuple(pairs_of(task, np.random.default_rng(0), 4)), solved=True)
    asked = [("", p) for p in task.problems("test")[:6]]
    row = system.measured(task, asked)
    assert row["reward_by_interpreter"] == 1.0
    assert row["skills_found"] == 1.0
    system.execute = "model"
    logps, _ = answer_scores(system, asked, [task.answer(p) for _, p in asked])
    assert np.exp(logps).mean() == pytest.approx(row["reward_by_model"], rel=1e-4)
    assert row["reward_by_model"] < 0.2  # the model was trained on three rules at most


def test_curricula(base: Policy) -> None:
    rng, library = np.random.default_rng(0), Library()
    first = pool("strings", base.words)[0]
    chosen = next_practice("depth", base, library, {first.name: (1, 1)}, "strings", rng)
    assert chosen is not None
    assert len(chosen.rules) == 1
    assert chosen != first
    done = {task.name: (1, 1) for task in pool("strings", base.words)}
    for kind in ("depth", "random", "novelty", "none"):
        assert next_practice(kind, base, library, done, "strings", rng) is None  # type: ignore[arg-type]
    library.store(Skill("strings", ("sort",), "given", right=True))
    assert next_practice("novelty", base, library, {}, "strings", rng) is not None
    assert next_practice("none", base, library, {}, "strings", rng) is None


def test_a_library_of_another_model_or_world_is_refused(base: Policy) -> None:
    system = stored(base, HALF)
    system.goals["strings"] = Goal("t", (("AB", "BA"),), solved=True)
    again = Skills(base)
    again.restore({}, system.notes())
    assert again.notes() == system.notes()
    with pytest.raises(ValueError, match="another model"):
        Skills(base).restore({}, {**system.notes(), "model": "00000000"})
    with pytest.raises(ValueError, match="unknown rules"):
        Skills(base).restore({}, {**system.notes(), "skills": [["strings", ["fly"], "x", True]]})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("skills", [["strings", ["sort"] * 13, "x", True]], "at most 12 rules"),
        ("skills", [["strings", "sort", "x", True]], "must be a tuple"),
        ("skills", [["strings", ["sort"], "x", 1]], "must be True or False"),
        ("goals", {"birds": ["t", [["AB", "BA"]], True]}, "no family 'birds'"),
        ("goals", {"strings": ["t", [["12", "21"]], True]}, "no symbol"),
        ("goals", {"strings": ["t", [["A", "A"]], True]}, "start list"),
        ("goals", {"strings": ["t", [[1, 2]], True]}, "must be a text"),
        ("goals", {"strings": ["t", [["AB", "BA"]], "yes"]}, "must be True or False"),
        ("counts", {"t": [1, 3]}, "fit together"),
        ("counts", {"t": [-3, -3]}, "fit together"),
        ("counts", {"t": [10**30, 1]}, "fit together"),
        ("counts", {"t": ["1", "0"]}, "fit together"),
    ],
)
def test_a_state_with_one_strange_value_is_refused_and_nothing_changes(
    name: str, value: object, said: str, base: Policy
) -> None:
    system = stored(base, HALF)
    before = system.notes()
    with pytest.raises(ValueError, match=said):
        system.restore({}, {**before, name: value})
    assert system.notes() == before


@pytest.mark.parametrize(
    ("given", "said"),
    [({"execute": "both"}, "execute"), ({"curriculum": "hard"}, "curriculum"), ({"rounds": 0}, "at least 1")],
)
def test_settings_that_are_not_allowed(given: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        SkillLibrary(**given)  # type: ignore[arg-type]


def test_tasks_that_cannot_be_verified(base: Policy) -> None:
    with pytest.raises(InputError, match="/share"):
        SkillLibrary().check(base, "", parse_task("strings:sort/share"))
    with pytest.raises(InputError, match="--context"):
        SkillLibrary().check(base, "sort", parse_task("strings:sort"))
    assert run_program("strings", HALF, "BA") == "BC"
