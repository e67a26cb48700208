"""In a new image, offline: says what is there and where its package managers would fetch from, as JSON."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from glob import glob

TOOLS = ("bash", "git", "rg", "node", "npm", "gcc", "make", "cmake", "go", "cargo", "java", "mvn")
ADDRESS = re.compile(r"https://([a-z0-9.-]+)")


def said(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def python_hosts() -> list[str]:
    text = said("python3", "-m", "pip", "config", "list")
    own = [line.split("=", 1)[1] for line in text.splitlines() if "index-url" in line]
    if own:
        return ADDRESS.findall(" ".join(own))
    index = "from pip._internal.models.index import PyPI; print(PyPI.netloc, PyPI.file_storage_domain)"
    return said("python3", "-c", index).split()


def cargo_hosts() -> list[str]:
    """Cargo says its index nowhere but in itself; where that keeps its files, only the index knows."""
    cargo = shutil.which("cargo")
    if cargo is None:
        return []
    with open(os.path.realpath(cargo), "rb") as file:
        return re.findall(r"sparse\+https://([a-z0-9.-]+)/", file.read().decode("latin-1"))


def maven_hosts() -> list[str]:
    text = ""
    for name in glob("/usr/share/maven*/lib/maven-model-builder*.jar"):
        with zipfile.ZipFile(name) as jar:
            text += jar.read("org/apache/maven/model/pom-4.0.0.xml").decode()
    for name in glob("/etc/maven/settings.xml"):
        with open(name) as file:
            text += re.sub(r"<!--.*?-->", "", file.read(), flags=re.DOTALL)
    return re.findall(r"<url>https://([a-z0-9.-]+)", text)


def go_hosts() -> list[str]:
    proxies, _, sums = said("go", "env", "GOPROXY", "GOSUMDB").strip().partition("\n")
    names = ADDRESS.findall(proxies)
    return names + ([sums.split("+")[0].split()[-1]] if names and sums.strip() not in ("", "off") else [])


def main() -> None:
    hosts = [*python_hosts(), *ADDRESS.findall(said("npm", "config", "get", "registry")), *go_hosts()]
    print(
        json.dumps(
            {
                "python": list(sys.version_info[:3]),
                "tools": {name: shutil.which(name) or "" for name in TOOLS},
                "git": said("git", "--version").strip(),
                "hosts": sorted({*hosts, *maven_hosts()}),
                "cargo": sorted(set(cargo_hosts())),
            }
        )
    )


main()
