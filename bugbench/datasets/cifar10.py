"""CIFAR-10: 60,000 photographs of ten kinds of things, 32x32 pixels in colour, 10,000 for testing (Krizhevsky 2009).

The files are the user's (see :mod:`bugbench.image_files`). All training images are written for the program, in the
order of the files; of the test images the first 200 of each class are the hidden test set.
"""

from bugbench.image_files import CifarImages, accuracy

FILES = CifarImages("CIFAR10", "cifar-10-batches-py")

obtain = FILES.obtain
write_training_data = FILES.write_training_data
training_sample = FILES.training_sample
hidden_test = FILES.hidden_test
oracle_metric = accuracy
