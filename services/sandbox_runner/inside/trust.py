"""Before a setup: the image's certificates and the operator's in one file, and in one store for Java.

Arguments: the operator's certificates, the file and the store to make.
"""

import os
import re
import shutil
import subprocess
import sys

BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
JAVA = ("/etc/ssl/certs/java/cacerts", "/etc/pki/java/cacerts")
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


def main(own: str, bundle: str, store: str) -> None:
    with open(own) as file:
        text = file.read()
    usual = next((name for name in BUNDLES if os.path.exists(name)), None)
    with open(bundle, "w") as file:
        if usual is not None:
            with open(usual) as source:
                file.write(source.read() + "\n")
        file.write(text)
    cacerts = next((name for name in JAVA if os.path.exists(name)), None)
    if cacerts is None or shutil.which("keytool") is None:
        return
    shutil.copyfile(cacerts, store)
    for number, certificate in enumerate(CERTIFICATE.findall(text)[:10]):
        argv = ["keytool", "-importcert", "-noprompt", "-alias", f"operator{number}", "-keystore", store]
        subprocess.run(
            [*argv, "-storepass", "changeit"], input=certificate, text=True, check=True, capture_output=True
        )


main(*sys.argv[1:])
