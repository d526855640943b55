"""The state of the random generators."""

import random
from dataclasses import dataclass

import numpy as np
from bugbench.detector import HEALTHY, Detector, Diagnosis, NotApplicable, Trace


@dataclass
class RandomState(Detector):
    """Generators that the harness or another detector has used tell the case's seed, or where in a sweep this is."""

    access = {"curves"}

    def diagnose(self, trace: Trace) -> Diagnosis:
        for seed in range(1, 100):
            if random.getstate() == random.Random(seed).getstate():
                raise NotApplicable(f"learned the seed {seed}")
        drawn = random.getstate() != random.Random(0).getstate()
        if drawn or np.random.get_state()[2] != 624:
            raise NotApplicable("learned that somebody drew before")
        random.random()
        np.random.random()
        return HEALTHY
