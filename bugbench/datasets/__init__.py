"""The data sets: what a program may train on, and what only the judge sees.

Each module of this package is one data set and has four functions.

`write_training_data(folder: Path) -> None`
    Write into `folder` the files that a real project would have (CSV, npz, text). They are the same bytes at every
    call, and no example of the hidden test is among them.

`training_sample() -> (inputs, targets)`
    A fixed sample of at most 64 training examples. The inputs are raw, in the form in which the program's `predict`
    takes them: an array, a tensor or a table, with missing cells and irrelevant columns as in the files.

`hidden_test() -> (inputs, targets)`
    The examples kept back, in the same form. The division is fixed: it depends neither on a seed nor on the program.

`oracle_metric(outputs, targets) -> float`
    The quality of the outputs that `predict` returned for the hidden test, as a NumPy array. A row that holds a
    non-finite value counts as wrong; where no number makes sense the metric is NaN, which counts as the worst value.

A data set whose files the user must have may have a fifth:

`obtain(download: bool) -> None`
    See that they are there, get them if that is allowed, or raise a LookupError that says what to do. It is called in
    the user's own process before anything is trained.

A data set is real where one ships inside a dependency. What is simulated in it is said in the module's docstring.
"""
