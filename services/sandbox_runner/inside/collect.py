"""After a test command: its reports as base64 of compressed JSON, a list of names and texts."""

import base64
import json
import os
import zlib
from glob import glob

PATTERNS = (
    "/tmp/.millrace/report.*",
    "/workspace/**/target/surefire-reports/TEST-*.xml",
    "/workspace/**/build/test-results/**/TEST-*.xml",
)
MOST, SIZE, TOGETHER = 2000, 8 * 1024 * 1024, 16 * 1024 * 1024


def main() -> None:
    names = [name for pattern in PATTERNS for name in sorted(glob(pattern, recursive=True))]
    found, together = [], 0
    for name in names[:MOST]:
        if os.path.islink(name) or not os.path.isfile(name):
            continue
        together += os.path.getsize(name)
        if os.path.getsize(name) > SIZE or together > TOGETHER:
            break
        with open(name, "rb") as file:
            found.append([name, file.read(SIZE).decode("utf-8", "replace")])
    print(base64.b64encode(zlib.compress(json.dumps(found).encode(), 6)).decode())


main()
