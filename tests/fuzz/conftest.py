"""No tests here: these are run as commands, and by tests/test_fuzz.py."""

collect_ignore_glob = ["*.py"]
