"""deepchecks: integrity of a table, and validation of a split."""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bugbench.detector import Detector, Diagnosis, NotInstalled, Trace
from bugbench.sample_tables import tables
from bugbench.third_party import OFFLINE, Message, own_interpreter, translate

FAULTS = {
    "PercentOfNulls": ["nan_inputs"],
    "DataDuplicates": ["duplicate_rows"],
    "ConflictingLabels": ["label_noise"],
    "FeatureLabelCorrelation": ["label_leakage"],
    "TrainTestSamplesMix": ["train_in_validation", "duplicates_across_split"],
    "DatasetsSizeComparison": ["tiny_validation"],
    "NewLabelTrainTest": ["dropped_class", "split"],
    "LabelDrift": ["split"],
}
PACKAGES = "deepchecks==0.19.1 numpy==1.26.4 pandas==2.3.3 scikit-learn==1.7.2 scipy==1.17.1 setuptools==80.9.0"
SCRIPT = """
import json, os, sys, warnings
from importlib.metadata import version
pins = dict(pin.split("==") for pin in sys.argv[2:])
other = [f"{name} {version(name)}" for name, pinned in pins.items() if version(name) != pinned]
if other:
    json.dump({"other": other}, open("said.json", "w"))
    sys.exit()
warnings.simplefilter("ignore")
import pandas as pd
from deepchecks.core.errors import DeepchecksNotSupportedError, ModelValidationError, NotEnoughSamplesError
from deepchecks.tabular import Dataset
from deepchecks.tabular import checks

train, test = (pd.read_csv(name) if os.path.exists(name) else None for name in ("train.csv", "test.csv"))
alike = test is not None and list(train) == list(test)
about = {"label": "target", "label_type": sys.argv[1]} if "target" in train else {}
about["cat_features"] = []
train, test = (None if table is None else Dataset(table, **about) for table in (train, test))
run = [(checks.PercentOfNulls().add_condition_percent_of_nulls_not_greater_than(), (train,))]
run += [(checks.DataDuplicates().add_condition_ratio_less_or_equal(), (train,))]
if "label" in about:
    run += [(checks.FeatureLabelCorrelation(random_state=42).add_condition_feature_pps_less_than(), (train,))]
    if sys.argv[1] != "regression":
        run += [(checks.ConflictingLabels().add_condition_ratio_of_conflicting_labels_less_or_equal(), (train,))]
if alike:
    run += [(checks.TrainTestSamplesMix().add_condition_duplicates_ratio_less_or_equal(), (train, test))]
    run += [(checks.DatasetsSizeComparison().add_condition_test_train_size_ratio_greater_than(), (train, test))]
    if "label" in about:
        run += [(checks.LabelDrift().add_condition_drift_score_less_than(), (train, test))]
        if sys.argv[1] != "regression":
            run += [(checks.NewLabelTrainTest().add_condition_new_labels_number_less_or_equal(), (train, test))]
failed, raised = [], []
for check, given in run:
    try:
        results = check.run(*given).conditions_results
    except (NotEnoughSamplesError, DeepchecksNotSupportedError, ModelValidationError):
        continue  # the check is irrelevant here
    except Exception as error:
        raised.append(f"{type(check).__name__}: {type(error).__name__}: {error}")
        continue
    for result in results:
        words = f"{result.category.value} {result.name}: {result.details}"
        if result.category.value == "ERROR":
            raised.append(f"{type(check).__name__}: {words}")
        elif not result.is_pass():
            failed.append([type(check).__name__, words])
if raised and not failed:
    raise RuntimeError(" ".join("; ".join(raised).split()))
json.dump({"failed": failed}, open("said.json", "w"))
"""


@dataclass
class Deepchecks(Detector):
    """deepchecks 0.19.1 (docs.deepchecks.com): checks of its two suites for data with their default conditions.

    Of the training data: missing values, repeated rows, equal rows with different labels, a column that predicts the
    target (predictive power score). Of the split: shared rows, a validation set of less than a hundredth of the
    training set, labels that training lacks, a target that is distributed otherwise. Validation with other columns is
    not compared: the tool takes no such tables. The tables are those of ``leakcheck_ml``.

    ``PercentOfNulls`` is in neither suite, only in ``production_suite`` and without a condition; here it has the one
    that the tool offers for it. Left out of the suites are the checks of text, dates, identifiers and categories, of
    which a tensor has none; outliers, which have no condition; what tells of any images that they are at fault (single
    values, correlated features, drift of features); ``FeatureLabelCorrelationChange`` and ``MultivariateDrift``.

    As in a suite, a check draws with the seed 42, and one that raises does not hide what others found. If none found
    anything it is an error, unless the tool says that the check is irrelevant or lacks samples.

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
        kind = "regression" if trace.meta.get("task") == "regression" or not target else "multiclass"
        with tempfile.TemporaryDirectory() as folder:
            for name, table in (("train", train), ("test", test)):
                if table is not None:
                    table.to_csv(Path(folder) / f"{name}.csv", index=False)
            alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
            command = [str(python), "-c", SCRIPT, kind, *PACKAGES.split()]
            done = subprocess.run(command, cwd=folder, env=alone | OFFLINE, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"deepchecks: {done.stderr.strip().splitlines()[-1:]}")
            said = json.loads((Path(folder) / "said.json").read_text())
        if "other" in said:
            raise NotInstalled(f"{python} has {', '.join(said['other'])}: {python} -m pip install {PACKAGES}")
        return translate([Message(check, words) for check, words in said["failed"]], FAULTS)
