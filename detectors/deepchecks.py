"""deepchecks: integrity of a table, and validation of a split."""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import Detector, Diagnosis, NotApplicable, Trace
from bugbench.third_party import Message, own_interpreter, tables, translate

FAULTS = {
    "TrainTestSamplesMix": ["train_in_validation", "duplicates_across_split"],
    "FeatureLabelCorrelation": ["label_leakage"],
    "PercentOfNulls": ["nan_inputs"],
    "DataDuplicates": ["duplicate_rows"],
}
PACKAGES = "deepchecks==0.19.1 'setuptools<81' 'scikit-learn<1.8' 'pandas<3' 'numpy<2'"
SCRIPT = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
import pandas as pd
from deepchecks.tabular import Dataset
from deepchecks.tabular import checks

train, test = (pd.read_csv(name) if os.path.exists(name) else None for name in ("train.csv", "test.csv"))
about = {"label": "target", "label_type": sys.argv[1]} if "target" in train else {}
about["cat_features"] = []
train, test = (None if table is None else Dataset(table, **about) for table in (train, test))
run = [(checks.PercentOfNulls().add_condition_percent_of_nulls_not_greater_than(), (train,))]
run += [(checks.DataDuplicates().add_condition_ratio_less_or_equal(), (train,))]
if "label" in about:
    run += [(checks.FeatureLabelCorrelation().add_condition_feature_pps_less_than(), (train,))]
if test is not None:
    run += [(checks.TrainTestSamplesMix().add_condition_duplicates_ratio_less_or_equal(), (train, test))]
failed = []
for check, given in run:
    for result in check.run(*given).conditions_results:
        if not result.is_pass():
            failed.append([type(check).__name__, f"{result.category.value} {result.name}: {result.details}"])
json.dump(failed, open("failed.json", "w"))
"""


@dataclass
class Deepchecks(Detector):
    """deepchecks 0.19.1 (docs.deepchecks.com): four checks of its suites with their default conditions.

    Missing values, repeated rows, a column that predicts the target (predictive power score), and rows that training
    and validation share. Its other checks have no fault in the vocabulary, or tell of any images that they are at fault
    (a column with a single value). The tables are those of ``leakcheck_ml``.

    It needs older versions of numpy, pandas and scikit-learn than this project, and is under the AGPL: it runs in
    an environment of its own. ``python`` names its interpreter; left empty, it is looked for in ``envs/deepchecks``
    below the prefix of this Python, which is where a confined judging process can see one.
    """

    access = {"rerun"}
    origin = "tool"
    python: str = ""

    def diagnose(self, trace: Trace) -> Diagnosis:
        python = own_interpreter("deepchecks", self.python, PACKAGES)
        train, test, target = tables(trace)
        if trace.meta.get("task") == "language_model" or not len(train):
            raise NotApplicable("the tool checks tables of features")
        kind = "regression" if trace.meta.get("task") == "regression" or not target else "multiclass"
        with tempfile.TemporaryDirectory() as folder:
            for name, table in (("train", train), ("test", test)):
                if table is not None:
                    table.to_csv(Path(folder) / f"{name}.csv", index=False)
            alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
            command = [str(python), "-c", SCRIPT, kind]
            done = subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"deepchecks: {done.stderr.strip().splitlines()[-1:]}")
            failed = json.loads((Path(folder) / "failed.json").read_text())
        return translate([Message(check, said) for check, said in failed], FAULTS)
