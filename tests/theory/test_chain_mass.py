"""Chains as an old behaviour: against the old-mass law, the law of replay, an integrator, and a softmax model of tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import expit, logit

from fstsim import InputError
from fstsim.theory.chain_mass import chain_log_odds_paid, chain_mass_rate, chain_mass_rest
from fstsim.theory.forward_kl import mass_forgetting_separated
from fstsim.theory.replay import replay_time
from fstsim.theory.statements import find_statements
from fstsim.theory.statements.check import check_statement

MASSES = st.floats(0.01, 0.99)


def flow(u0: float, t: float, share: float, weight: float, gap: float) -> float:
    """Log-odds after time t, by an integrator of scipy."""
    done = solve_ivp(lambda _, u: chain_mass_rate(u, share, weight, gap), (0.0, t), [u0], rtol=1e-10, atol=1e-12)
    return float(done.y[0, -1])


@given(mass=MASSES, t=st.floats(0.01, 30.0))
def test_answers_alone_forget_by_the_old_mass_law(mass: float, t: float) -> None:
    end = flow(float(logit(mass)), t, 0.0, 1.0, 0.0)
    assert expit(end) == pytest.approx(float(mass_forgetting_separated(mass, t)), rel=1e-7)


@given(mass=MASSES, share=st.floats(0.05, 0.95))
def test_a_share_of_chains_is_approached_in_the_time_of_replay(mass: float, share: float) -> None:
    if abs(mass - share) < 0.02:
        return
    end = float(expit(flow(float(logit(mass)), 2.0, share, 1.0, 0.0)))
    assert float(replay_time(mass, end, share)) == pytest.approx(2.0, rel=1e-5)
    assert float(chain_mass_rest(share, 1.0, 0.0)) == pytest.approx(share)


@given(mass=MASSES, share=st.floats(0.0, 1.0), weight=st.floats(0.05, 2.0), gap=st.floats(-1.0, 1.0))
def test_the_rest_is_where_the_flow_goes(mass: float, share: float, weight: float, gap: float) -> None:
    rest = float(chain_mass_rest(share, weight, gap))
    end = float(expit(flow(float(logit(mass)), 50.0, share, weight, gap)))
    then = float(expit(flow(float(logit(mass)), 100.0, share, weight, gap)))
    assert abs(then - rest) <= abs(end - rest) + 1e-6 <= abs(mass - rest) + 2e-6


@given(u0=st.floats(-5.0, 5.0), t=st.floats(0.0, 100.0), gap=st.floats(-1.0, 1.0))
def test_reinforcement_against_an_integrator(u0: float, t: float, gap: float) -> None:
    assert float(chain_log_odds_paid(u0, t, gap)) == pytest.approx(flow(u0, t, 0.0, 0.0, gap) if t else u0, abs=1e-6)


def test_both_gradients_are_those_of_a_table_of_two_tokens() -> None:
    """Autograd of the cross-entropy and of the expected reward, for the logits of (chain, answer)."""
    for u, share, gap in ((-2.0, 0.3, 0.4), (0.5, 0.0, -0.7), (3.0, 1.0, 0.0)):
        x = torch.tensor(u, dtype=torch.float64, requires_grad=True)
        logp = torch.stack([x, torch.zeros_like(x)]).log_softmax(0)
        rewards = torch.tensor([0.2 + gap, 0.2], dtype=torch.float64)
        shown = torch.tensor([share, 1.0 - share], dtype=torch.float64)
        (logp @ shown * 0.5 + logp.exp() @ rewards).backward()
        assert x.grad is not None
        assert float(x.grad) == pytest.approx(float(chain_mass_rate(u, share, 0.5, gap)), rel=1e-12)


@pytest.mark.parametrize("slug", ["chain-mass", "chain-mass-paid"])
def test_a_wrong_law_is_noticed(slug: str) -> None:
    from dataclasses import replace

    (statement,) = find_statements(slug)
    assert check_statement(statement, 2000, seed=1).violations == 0
    wrong = replace(statement, bound=lambda **x: tuple(1.001 * b for b in statement.bound(**x) if b is not None))  # type: ignore[arg-type,return-value]
    assert check_statement(wrong, 2000, seed=1).violations > 1000


def test_what_is_no_share_gap_or_weight() -> None:
    with pytest.raises(InputError, match="chain_share"):
        chain_mass_rest(1.5, 1.0, 0.0)
    with pytest.raises(InputError, match="weight must be positive"):
        chain_mass_rest(0.5, 0.0, 0.5)
    with pytest.raises(InputError, match="gap must lie"):
        chain_log_odds_paid(0.0, 1.0, 2.0)
    assert np.allclose(chain_mass_rest(0.0, [0.2, 0.5, 2.0], 0.5), [0.6, 0.0, 0.0])
