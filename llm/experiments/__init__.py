"""The experiments on fast-slow training: what each is about, and which runs it makes.

Runs are shared between experiments: a run has a name, a configuration and seeds, and lives in ``runs/NAME/seed-k``; what
is finished is only loaded. Tasks and settings are declared here, before any run; nothing is chosen afterwards. What an
experiment shows is declared in `fstsim.paper.experiments.shown`. Source: 2605.12484 (figures 1-7 there).
"""

from __future__ import annotations

from fstsim.llm.experiments.experiment import Experiment

CORE = Experiment("core", "data efficiency, asymptote, reward against KL, 2 x 2")
CALIBRATE = Experiment("calibrate", "declared sweep of learning rates and leashes")
CONTINUAL = Experiment("continual", "three families in one run")
ZERO = Experiment("zero", "a star graph from next to no reward, at every learning rate")
PLASTICITY = Experiment("plasticity", "fresh RL from trained weights")
DISTILL = Experiment("distill", "context into weights")
REUSE = Experiment("reuse", "slow steps that use the fast rounds' rollouts")
REFLECTORS = Experiment("reflectors", "a frozen reflector beside the policy as its own, over three families")

SYSTEMS = Experiment("systems", "everywhere that adaptation can be put: reward against KL, old skills and cost")
FORGETTING = Experiment("forgetting", "what forgetting follows: KL on new and on old prompts, weights, entropy")

EXPERIMENTS = (CORE, CALIBRATE, CONTINUAL, ZERO, PLASTICITY, DISTILL, REUSE, REFLECTORS, SYSTEMS, FORGETTING)
