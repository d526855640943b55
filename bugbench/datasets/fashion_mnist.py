"""FashionMNIST: 70,000 pictures of ten kinds of clothing, 28x28 pixels in grey, 10,000 for testing (Xiao et al. 2017).

The files are the user's (see :mod:`bugbench.image_files`). All training images are written for the program, in the
order of the files; of the test images the first 200 of each class are the hidden test set.
"""

from bugbench.image_files import IdxImages, accuracy

FILES = IdxImages("FashionMNIST", "FashionMNIST/raw")

obtain = FILES.obtain
write_training_data = FILES.write_training_data
training_sample = FILES.training_sample
hidden_test = FILES.hidden_test
oracle_metric = accuracy
