"""What a training tells while it runs: lines of JSON, in a file and on the screen."""

import json
import time


class Log:
    """JSON lines, each written at once and shown."""

    def __init__(self, path):
        self.path, self.begun = path, time.time()

    def __call__(self, **row):
        """Write one row of what happened, at once."""
        row = {"t": round(time.time() - self.begun, 1), **row}
        with open(self.path, "a") as sink:
            sink.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
