"""The healthy programs: one PyTorch training script per file, which the bug cards edit."""
