"""Runs the scripts of this folder in one process, which imports their packages once.

A line of its input is a script and its arguments, as JSON; the answer is a line too.
"""

import json
import os
import runpy
import sys

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is no answer
for line in sys.stdin:
    sys.argv = json.loads(line)
    runpy.run_path(sys.argv[0], run_name="__main__")
    print("done", file=answers, flush=True)
