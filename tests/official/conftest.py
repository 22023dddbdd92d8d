"""The script for the other environment cannot be imported in this one."""

collect_ignore = ["official_side.py"]
