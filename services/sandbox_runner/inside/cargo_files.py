"""Where a Cargo index keeps its files: its ``config.json`` says (The Cargo Book, "Registry Index").

Arguments: the proxy's port, the index's host, a file of certificates that may be missing.
"""

import json
import os
import ssl
import sys
from http.client import HTTPSConnection

port, host, bundle = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.create_default_context(cafile=bundle if os.path.exists(bundle) else None)
connection = HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
connection.set_tunnel(host, 443)
connection.request("GET", "/config.json", headers={"User-Agent": "millrace"})
print(json.loads(connection.getresponse().read(100_000))["dl"])
