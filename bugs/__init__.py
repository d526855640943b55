"""The bug cards, one YAML file each; the file name is the id of the bug."""
