"""The columns of ``metrics.jsonl``, each declared once: what it means in the mixture and what in a model's run.

A run of the simulator and a run of a model write the same directory; a column that both have stands for the same thing.
Tables, pictures and documentation read `COLUMNS`, and a test demands that whatever a training writes is declared here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Meaning:
    """What a column means in one of the two worlds, and its unit; without one it is a share, a probability or a count."""

    text: str
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.text}, {self.unit}" if self.unit else self.text


@dataclass(frozen=True)
class Column:
    """One column; a ``name`` with a word in braces stands for all that have something in its place."""

    name: str
    mixture: Meaning | None = None
    model: Meaning | None = None
    count: bool = False
    """a whole number, printed to the last digit"""
    table: bool = False
    """in the table that a training ends with"""
    legend: str = ""
    """what its line is called in the picture of a training"""


COLUMNS = (
    Column("step", Meaning("update"), Meaning("slow step"), count=True),
    Column("time", Meaning("1/learning rate; updates unless a flow")),
    Column("samples", Meaning("drawn by one learner"), Meaning("rollouts of both channels, a seed"), count=True),
    Column("task", model=Meaning("number of the task of a sequence, from 0"), count=True),
    Column(
        "reward",
        Meaning("probability of the new region"),
        Meaning("held-out reward, in its context"),
        table=True,
        legend="held-out problems",
    ),
    Column("reward_no_context", model=Meaning("the same without context"), table=True, legend="without context"),
    Column(
        "old_mass",
        Meaning("weight of the old mode"),
        Meaning("probability of the old behaviour, no context"),
        table=True,
        legend="old behaviour",
    ),
    Column("old_mass_deployed", model=Meaning("the same with the system's state left on"), table=True),
    Column(
        "old_log_odds",
        model=Meaning("log-odds of the old behaviour against the right answer, no context, mean over problems", "nats"),
    ),
    Column("old_region_mass", Meaning("probability of the old region")),
    Column(
        "drift",
        Meaning("shift of the old mean", "standard deviations"),
        Meaning("accuracy lost on old skills, own context"),
        table=True,
    ),
    Column("drift_deployed", model=Meaning("accuracy lost on old skills with the system's state left on"), table=True),
    Column("drift_nll", model=Meaning("NLL gained on old skills", "nats a token"), table=True),
    Column("old_skills", model=Meaning("held-out reward on the tasks of --old, own context"), table=True),
    Column("old_skills_drift", model=Meaning("reward lost on them"), table=True),
    Column("old_skills_deployed", model=Meaning("the same with the system's state left on"), table=True),
    Column("old_skill_{task}", model=Meaning("held-out reward on one of them")),
    Column("old_nll_{task}", model=Meaning("NLL of one of them that is read as it stands", "nats a token")),
    Column("verifier_errors", model=Meaning("completions on which a verifier raised, each scored 0"), count=True),
    Column(
        "kl_to_base",
        Meaning("KL(now || start)", "nats"),
        Meaning("KL(now || base)", "nats a sequence"),
        table=True,
        legend="KL(now ‖ base)",
    ),
    Column(
        "kl_from_base",
        Meaning("KL(start || now)", "nats"),
        Meaning("KL(base || now)", "nats a sequence"),
        table=True,
        legend="KL(base ‖ now)",
    ),
    Column("old_kl_to_base", model=Meaning("KL(now || base) on prompts of old skills", "nats a sequence"), table=True),
    Column(
        "old_kl_from_base", model=Meaning("KL(base || now) on prompts of old skills", "nats a sequence"), table=True
    ),
    Column("weight_distance", model=Meaning("norm of what the weights moved by, over the norm of the base's")),
    Column(
        "kl_deployed",
        model=Meaning("KL(now in its context, state on || base without), how far behaviour is", "nats a sequence"),
        table=True,
    ),
    Column("kl_deployed_from", model=Meaning("KL(base without || now in its context, state on)", "nats a sequence")),
    Column("kl_excess", model=Meaning("of kl_deployed, what its success does not need", "nats a sequence"), table=True),
    Column("kl_to_base_token", model=Meaning("KL(now || base)", "nats a token"), table=True),
    Column(
        "entropy", Meaning("of the choice of mode", "nats"), Meaning("of the policy", "nats a sequence"), table=True
    ),
    Column(
        "relearn",
        Meaning("time back to old mass 0.9"),
        Meaning("supervised steps to half on the next task"),
        table=True,
    ),
    Column("relearn_state", model=Meaning("steps to half on the next task in the system's own channel"), table=True),
    Column("cases", model=Meaning("in the bank"), count=True),
    Column("plans", model=Meaning("different plans of the cases in the bank"), count=True),
    Column("reflections", model=Meaning("plans or programs that the model wrote in the last step"), count=True),
    Column("read_best", model=Meaning("reward of the one plan in the bank that is best for all problems")),
    Column("read_oracle", model=Meaning("reward of the best plan in the bank for each problem"), table=True),
    Column("read_random", model=Meaning("reward of a case drawn evenly from the bank")),
    Column("router_brier", model=Meaning("mean squared error of Q against the exact success of each case"), table=True),
    Column("router_brier_base", model=Meaning("the same of their mean success in place of Q")),
    Column("skills", model=Meaning("in the library"), count=True, table=True),
    Column("skills_false", model=Meaning("skills that do not do the task they were stored for"), table=True),
    Column("skills_depth", model=Meaning("rules in the longest program of the library"), count=True),
    Column("skills_found", model=Meaning("skills that fresh examples of what they do retrieve first")),
    Column("reward_by_model", model=Meaning("with programs in the model's context"), table=True),
    Column("reward_by_interpreter", model=Meaning("with programs run by the world"), table=True),
    Column("practice_reward", model=Meaning("whether the practice of the last step was solved")),
    Column("numbers_trained", model=Meaning("numbers that the system trains"), count=True),
    Column("bytes_stored", model=Meaning("of the system's state"), count=True),
    Column("train_reward", model=Meaning("of the rollouts in the last step"), table=True, legend="rollouts"),
    Column("fast_best", model=Meaning("validation score of the best context, last round"), table=True),
    Column("fast_rollouts", model=Meaning("rollouts of the last fast round"), table=True),
    Column(
        "dead_share",
        model=Meaning("groups without signal in the last step"),
        table=True,
        legend="groups without signal",
    ),
    Column("unsolved_share", model=Meaning("groups without context in which nothing succeeded, last step")),
    Column("rescued_share", model=Meaning("of these, groups in which something succeeded in a context")),
    Column("capped_share", model=Meaning("tokens over the ratio cap"), table=True),
    Column("fast_mean", model=Meaning("mean validation score of all contexts, last round")),
    Column("fast_candidates", model=Meaning("contexts scored in the last round")),
    Column("fast_reflections", model=Meaning("contexts that the reflector wrote in the last round")),
    Column("fast_unusable", model=Meaning("of these, texts that are no context"), count=True, table=True),
    Column("edits_most", model=Meaning("words that an edit of the document may change"), count=True),
    Column("edits_accepted", model=Meaning("edits taken in the last round"), count=True),
    Column("edits_rejected", model=Meaning("edits scored and not taken in the last round"), count=True),
    Column("edits_known", model=Meaning("proposals that changed nothing or had been rejected before"), count=True),
    Column("reused", model=Meaning("rollouts of the fast round that the step has used")),
    Column("loss", model=Meaning("of the last step")),
    Column("grad_norm", model=Meaning("norm of the gradient before it is clipped")),
    Column("length", model=Meaning("of the rollouts in the last step", "tokens")),
    Column("train_entropy", model=Meaning("of the policy on the rollouts", "nats a token")),
    Column("train_kl", model=Meaning("KL(now || base) on the rollouts", "nats a sequence")),
    Column(
        "leash_kl",
        model=Meaning("KL of the leash, between now and what it is tied to, on its rollouts", "nats a sequence"),
    ),
    Column("shown", model=Meaning("new demonstrations in the step"), count=True),
    Column("old_share", model=Meaning("old demonstrations in the batch")),
    Column("own_right", model=Meaning("old prompts that got a right answer of the policy's own (replay own)")),
    Column("frozen_share", model=Meaning("weights that no update moves (isolate)")),
    Column("drive_share", model=Meaning("of the base's drive, summed sizes of gradients, that frozen weights hold")),
    Column("drive_share_squared", model=Meaning("of the base's drive, summed squares, that frozen weights hold")),
    Column("core_drive_share", model=Meaning("of the base's drive on a task, summed sizes, that its own core holds")),
    Column(
        "core_drive_share_squared",
        model=Meaning("of the base's drive on a task, summed squares, that its own core holds"),
    ),
    Column("core_groups", model=Meaning("groups of tasks whose cores overlap"), count=True),
    Column("core_overlap_{tasks}", model=Meaning("overlap of the cores of two tasks (Jaccard)")),
    Column("value", model=Meaning("value of the lagged policy, mean over groups")),
    Column("lagged_kl", model=Meaning("KL(lagged || now), from one sample", "nats a sequence")),
    Column("inverse_temperature", model=Meaning("of groups with signal, mean of the finite ones")),
    Column("greedy_share", model=Meaning("groups with signal of which only the best rollouts count")),
    Column("nll", model=Meaning("of old skills with rules in context", "nats a token")),
    Column("accuracy_{family}_{rules}", model=Meaning("of old skills, by family and number of rules in context")),
    Column("old_mass_{family}", model=Meaning("probability of the old behaviour in the exam, by family")),
)

# What the name of a column may go on with: the same quantity, measured otherwise.
_TAILS = re.compile(
    r"_se|_token|_no_context|_all_contexts|_own_context|_task\d+|_deployed|_expert|_alpha-?[\d.]+|_zero|_shuffled"
)
_PATTERNS = {
    re.compile(
        "".join(r"\w+" if part.startswith("{") else part for part in re.split(r"(\{\w+\})", column.name))
    ): column
    for column in COLUMNS
}


def find_column(name: str) -> Column | None:
    """The declaration of a column, or of the quantity that its name begins with; None if there is none.

    ``_se`` is a standard error, ``_token`` a token in place of a sequence, ``_no_context``, ``_all_contexts`` and
    ``_own_context`` the contexts, ``_task1`` another task of the sequence, ``_deployed`` the whole system; ``_expert`` the small
    model of a proxy, against its own start, ``_alpha2`` the proxy at another alpha, ``_zero`` and ``_shuffled`` soft tokens that are zeros or of another problem:
    ``reward_task1_own_context_se`` is of `reward`.
    """
    exact = next((column for column in COLUMNS if column.name == name), None)
    if exact is not None:
        return exact
    for tail in _TAILS.finditer(name):
        if tail.end() == len(name):
            return find_column(name[: tail.start()])
    return next((column for pattern, column in _PATTERNS.items() if pattern.fullmatch(name)), None)
