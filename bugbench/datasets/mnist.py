"""MNIST: 70,000 handwritten digits of 28x28 pixels in grey, 10,000 of them for testing (LeCun et al. 1998).

The files are the user's (see :mod:`bugbench.image_files`). All training images are written for the program, in the
order of the files; of the test images the first 200 of each class are the hidden test set.
"""

from bugbench.image_files import IdxImages, accuracy

FILES = IdxImages("MNIST", "MNIST/raw")

obtain = FILES.obtain
write_training_data = FILES.write_training_data
training_sample = FILES.training_sample
hidden_test = FILES.hidden_test
oracle_metric = accuracy
