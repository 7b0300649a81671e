"""Figures of the battery: printed, and appended as JSON lines to the file that FORKPOINT_SOAK_REPORT names."""

import json
import os


def report(row, **figures):
    line = json.dumps({"row": row, **figures})
    print(line)
    if place := os.environ.get("FORKPOINT_SOAK_REPORT"):
        with open(place, "a") as file:
            file.write(line + "\n")
