"""The methods as maps on the log-odds (theory 11): closed forms, classification against long runs, products on a grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import expit, logit

from fstsim import InputError
from fstsim.theory.clocks import learning_clock
from fstsim.theory.maps import FieldMap, LogOddsMap, ProbabilityMap, basin_odds_bounds, product_log_odds, retains
from fstsim.theory.methods import METHOD_TABLE, method_map
from fstsim.theory.statements.maps import _basin_odds, _integrated_odds

# one set of hyper-parameters a row: all with a reward gap or tilt against the old mode
HYPER: dict[str, dict[str, float]] = {
    "forward-kl": {},
    "forward-kl-logit": {},
    "replay": {"replay_fraction": 0.2},
    "forward-leash": {"base_log_odds": 0.5, "eta": 0.7},
    "reverse-leash": {"base_log_odds": 0.5, "eta": 0.7},
    "reverse-kl": {"target_log_odds": -0.4},
    "policy-gradient": {"gap": 0.6},
    "regularised-rl": {"base_log_odds": 0.5, "gap": 0.6, "kl_weight": 0.5},
    "sdft": {"tilt": 0.3},
    "sdft-anchored": {"base_log_odds": 0.5, "tilt": 0.3, "anchor": 0.8},
    "ttt-discover": {"base_log_odds": 0.5, "scaled_gap": 1.2, "kl_weight": 0.6},
    "oapl": {"gap": 0.6, "tau": 2.0},
    "oapl-anchored": {"base_log_odds": 0.5, "gap": 0.6, "tau": 2.0, "anchor": 0.7},
}
LOSING = {"forward-kl", "forward-kl-logit", "policy-gradient", "sdft", "oapl"}
EACH = pytest.mark.parametrize("name", [row.method for row in METHOD_TABLE])


def test_table_is_complete() -> None:
    names = [row.method for row in METHOD_TABLE]
    assert len(set(names)) == len(names)
    assert set(names) == set(HYPER)
    assert all(row.title and row.map and row.interior and row.old_mass and row.retention for row in METHOD_TABLE)
    assert {row.method for row in METHOD_TABLE if row.interior.startswith("no")} == LOSING


@EACH
def test_classification_against_a_long_run(name: str) -> None:
    method = method_map(name, **HYPER[name])
    start, last = 0.5, 3000.0
    end = float(method.iterate(start, last))
    if name in LOSING:
        assert method.classify() == "lost"
        assert method.fixed_point() == -np.inf
        assert expit(end) < 1e-3
        assert not retains(method, 1e-6)
    else:
        assert method.classify() == "interior"
        assert end == pytest.approx(method.fixed_point(), abs=1e-6)
        assert retains(method, float(expit(method.fixed_point() - 0.01)))
        assert not retains(method, float(expit(method.fixed_point() + 0.01)))


@EACH
def test_iterates_of_a_map_are_its_own_composition(name: str) -> None:
    method = method_map(name, **HYPER[name])
    halfway = method.iterate(0.5, 3.0)
    np.testing.assert_allclose(method.iterate(halfway, 4.0), method.iterate(0.5, 7.0), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(method.iterate(0.5, 0.0), 0.5, atol=1e-14)


@given(floor=st.floats(0.01, 0.6), strength=st.floats(0.05, 5.0))
def test_retention_conditions_of_the_table(floor: float, strength: float) -> None:
    s0, level = 0.5, float(logit(floor))
    gap, tilt, anchor = 0.6, 0.3, strength / (1.0 + strength)
    z = floor + (1.0 - floor) * np.exp(1.2)
    base_mass = float(expit(s0))
    conditions = {
        "replay": (anchor - floor, {"replay_fraction": anchor}),
        "forward-leash": (
            strength * (base_mass - floor) - floor,
            {"base_log_odds": s0, "eta": strength},
        ),
        "reverse-leash": (strength * (1.0 - floor) * (s0 - level) - 1.0, {"base_log_odds": s0, "eta": strength}),
        "reverse-kl": (-0.4 - level, {"target_log_odds": -0.4}),
        "regularised-rl": (strength * (s0 - level) - gap, {"base_log_odds": s0, "gap": gap, "kl_weight": strength}),
        "sdft-anchored": ((1.0 - anchor) * (s0 - level) - tilt, {"base_log_odds": s0, "tilt": tilt, "anchor": anchor}),
        "ttt-discover": (
            strength * z * (s0 - level) - np.expm1(1.2),
            {"base_log_odds": s0, "scaled_gap": 1.2, "kl_weight": strength},
        ),
        "oapl-anchored": (
            2.0 * (1.0 - anchor) * (s0 - level) - gap,
            {"base_log_odds": s0, "gap": gap, "tau": 2.0, "anchor": anchor},
        ),
    }
    for name, (margin, hyper) in conditions.items():
        if abs(margin) > 1e-9:
            assert retains(method_map(name, **hyper), floor) == (margin > 0.0), name


def test_laws_of_the_losing_methods() -> None:
    t = np.array([0.0, 1.0, 10.0, 200.0])
    beta0 = float(expit(0.5))
    assert expit(method_map("forward-kl", rate=0.2).iterate(0.5, 10.0)) == pytest.approx(beta0 * 0.8**10)
    s = method_map("forward-kl-logit").iterate(0.5, t)
    np.testing.assert_allclose(1.0 / expit(s) - 1.0 / beta0 + 0.5 - s, t, atol=1e-6)
    s = method_map("policy-gradient", gap=0.6).iterate(0.5, t)
    np.testing.assert_allclose((learning_clock(0.5) - learning_clock(s)) / 0.6, t, atol=1e-6)
    assert method_map("oapl", gap=0.6, tau=2.0).iterate(0.5, 4.0) == pytest.approx(0.5 - 4 * 0.3)


def test_vanishing_tilts_are_neutral_and_reversed_ones_saturate() -> None:
    for name, key in (("sdft", "tilt"), ("policy-gradient", "gap")):
        assert method_map(name, **{key: 0.0}).classify() == "neutral"
        assert retains(method_map(name, **{key: 0.0}), 0.3)
        assert method_map(name, **{key: -0.5}).classify() == "saturated"
    assert method_map("ttt-discover", base_log_odds=0.0, scaled_gap=1.0, kl_weight=0.0).classify() == "lost"
    assert method_map("ttt-discover", base_log_odds=0.0, scaled_gap=0.0, kl_weight=0.0).classify() == "neutral"
    assert method_map("sdft-anchored", base_log_odds=0.0, tilt=0.3, anchor=1.0).classify() == "lost"


@given(
    a=st.floats(-1.2, 1.2),
    b=st.floats(-1.0, 1.0),
    c=st.floats(-1.0, 1.0),
    drift=st.floats(-1.0, 1.0),
    k=st.integers(0, 40),
    s0=st.floats(-4.0, 4.0),
)
def test_affine_iterates_against_a_loop(a: float, b: float, c: float, drift: float, k: int, s0: float) -> None:
    # in 1 - 1e-9 .. 1 the closed form divides by 1 - a: such maps are a = 1 to all purposes
    assume(abs(a - 1.0) > 1e-6 or a == 1.0)
    method = LogOddsMap(a, b, c, drift, target_log_odds=0.7, base_log_odds=-0.3)
    s = s0
    for _ in range(k):
        s = float(method.step(s))
    assert method.iterate(s0, k) == pytest.approx(s, rel=1e-6, abs=1e-6)
    if abs(a) < 0.95:
        assert method.classify() == "interior"
        assert method.step(method.fixed_point()) == pytest.approx(method.fixed_point(), rel=1e-9, abs=1e-9)


def test_fates_of_affine_maps() -> None:
    fates = {
        (0.5, 0.1): "interior",
        (-0.5, 0.1): "interior",
        (1.0, 0.0): "neutral",
        (1.0, 0.1): "lost",
        (1.0, -0.1): "saturated",
        (-1.0, 0.1): "period-two",
        (1.5, 0.1): "repelling",
    }
    for (a, drift), fate in fates.items():
        assert LogOddsMap(a, 0.0, 0.0, drift).classify() == fate
    assert np.isnan(LogOddsMap(1.0, 0.0, 0.0, 0.0).fixed_point())
    assert ProbabilityMap(0.1, 1.0).classify() == "saturated"
    assert FieldMap(lambda s: 0.0 * s, np.nan).classify() == "neutral"


@given(seed=st.integers(0, 10**6))
def test_product_normalisers_on_a_grid(seed: int) -> None:
    # also for exponents that do not sum to 1: the tempered normalisers of the two modes cancel
    rng = np.random.default_rng(seed)
    sample = {
        "exponents": rng.uniform(0.3, 1.5, (1, 3)),
        "log_odds": rng.uniform(-3.0, 3.0, (1, 3)),
        "means_old": rng.standard_normal((1, 3)),
        "means_new": 4.0 + rng.standard_normal((1, 3)),
        "drift": rng.uniform(-2.0, 2.0, 1),
    }
    exact = np.log(_integrated_odds(**sample))
    means = {key: sample[key][..., None] for key in ("means_old", "means_new")}
    np.testing.assert_allclose(product_log_odds(**{**sample, **means}), exact, atol=1e-8)
    equal = {**means, "means_new": means["means_old"] + 4.0}
    plain = (sample["exponents"] * sample["log_odds"]).sum() - sample["drift"][0]
    np.testing.assert_allclose(product_log_odds(**{**sample, **equal}), plain, atol=1e-12)


def test_basins_approach_the_map_like_the_overlap(rng: np.random.Generator) -> None:
    worst = []
    for delta in (4.0, 6.0, 8.0, 10.0):
        n = 60
        exponents, s, drift = rng.dirichlet(np.ones(3), n), rng.uniform(-2, 2, (n, 3)), rng.uniform(-1.5, 1.5, n)
        d = np.full(n, delta)
        odds = _basin_odds(exponents, s, drift, d)
        low, high = basin_odds_bounds(exponents, s, drift, d)
        assert (low <= odds * (1.0 + 1e-10)).all()
        assert (odds <= high * (1.0 + 1e-10)).all()
        worst.append(np.abs(np.log(odds) - (exponents * s).sum(axis=-1) + drift).max())
    assert (np.diff(worst) < 0.0).all()
    assert worst[0] < 0.3
    assert worst[-1] < 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: method_map("dpo"), "method 'dpo' is unknown; allowed: forward-kl,"),
        (lambda: method_map("oapl", gap=1.0), "method 'oapl' lacks tau; it takes: gap, tau"),
        (lambda: method_map("oapl", gap=1.0, tau=1.0, anchor=0.5), "does not take anchor"),
        (lambda: method_map("oapl", gap=1.0, tau=0.0), "tau must be positive"),
        (lambda: method_map("sdft-anchored", base_log_odds=0.0, tilt=0.3, anchor=1.5), "anchor must lie"),
        (lambda: method_map("replay", replay_fraction=2.0), "replay_fraction must lie"),
        (lambda: method_map("forward-kl", rate=0.0), "rate must lie"),
        (lambda: method_map("forward-kl-logit", rate=0.1), "it takes: nothing"),
        (lambda: method_map("policy-gradient", gap=np.nan), "gap must be finite"),
        (lambda: LogOddsMap(np.nan, 0.0, 0.0, 0.0), "a must be finite"),
        (lambda: LogOddsMap(0.5, 0.0, 0.0, 0.0).iterate(0.0, -1), "k must be nonnegative"),
        (lambda: LogOddsMap(0.5, 0.0, 0.0, 0.0).step(np.inf), "log_odds must be finite"),
        (lambda: ProbabilityMap(0.1, 1.2), "target_mass must lie"),
        (lambda: retains(LogOddsMap(0.5, 0.0, 0.0, 0.0), 0.0), "min_mass must lie strictly"),
        (lambda: product_log_odds([-1.0, 0.5], [0.0, 0.0], [[0.0], [0.0]], [[1.0], [1.0]], 0.0), "positive sum"),
        (lambda: product_log_odds([1.0, 0.5], [0.0, np.nan], [[0.0], [0.0]], [[1.0], [1.0]], 0.0), "log_odds must be"),
        (lambda: basin_odds_bounds([0.5, 0.6], [0.0, 0.0], 0.0, 4.0), "sum to 1"),
        (lambda: basin_odds_bounds([0.5, 0.5], [0.0, 0.0], 0.0, -4.0), "delta must lie"),
        (lambda: basin_odds_bounds([0.5, 0.5], [0.0, 0.0], np.inf, 4.0), "drift must be finite"),
    ],
)
def test_bad_input_is_one_clear_line(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        call()  # type: ignore[operator]
    assert "\n" not in str(error.value)
