"""Records resources from a running Envoy, for mesh-xds/src/resource/tests/recorded.rs.

It is started with ../envoy/recorded.yaml, which it has to find right, with a certificate of the moment, and asked
for its configuration (`/config_dump`), in which it leaves out private keys. What it says, as JSON, becomes bytes by
Google's protobuf.

    pip install -r requirements.txt -r ../envoy/requirements.txt
    python recorded_envoy.py DIRECTORY
"""

import importlib
import json
import pathlib
import pkgutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from google.protobuf.json_format import ParseDict

import envoy
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

OUT = pathlib.Path(sys.argv[1])
HERE = pathlib.Path(__file__).parent
DUMP = "http://127.0.0.1:19801/config_dump"
# Of each part of the dump: where its resources are, the resource in an entry, and its message.
PARTS = {
    "ClustersConfigDump": ("static_clusters", "cluster", cluster_pb2.Cluster),
    "ListenersConfigDump": ("static_listeners", "listener", listener_pb2.Listener),
    "RoutesConfigDump": ("static_route_configs", "route_config", route_pb2.RouteConfiguration),
    "SecretsConfigDump": ("static_secrets", "secret", secret_pb2.Secret),
}


def register():
    """Every extension's message, so that it is known in an Any."""
    for root in ("envoy.extensions", "envoy.type"):
        package = importlib.import_module(root)
        for module in pkgutil.walk_packages(package.__path__, root + "."):
            if module.name.endswith("_pb2") and ".v3" in module.name:
                importlib.import_module(module.name)


def configuration():
    """The file, with a certificate and its key."""
    with tempfile.TemporaryDirectory() as scratch:
        key, certificate = pathlib.Path(scratch, "key"), pathlib.Path(scratch, "certificate")
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=recorded"
        subprocess.run(
            [*command.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
        )
        text = (HERE / "../envoy/recorded.yaml").read_text()
        for placeholder, file in {"CERTIFICATE": certificate, "PRIVATE_KEY": key}.items():
            text = text.replace(f'"{placeholder}"', json.dumps(file.read_text()))
        return text


def dump():
    """What it says once it runs."""
    for _ in range(100):
        try:
            with urllib.request.urlopen(DUMP) as answer:
                found = json.load(answer)["configs"]
            if any("ListenersConfigDump" in part["@type"] and part.get("static_listeners") for part in found):
                return found
        except urllib.error.URLError:
            pass
        time.sleep(0.1)
    raise SystemExit("no Envoy has come up: look at what it printed")


register()
program = pathlib.Path(envoy.__file__).parent / "_bin/envoy"
process = subprocess.Popen([program, "--config-yaml", configuration(), "--log-level", "warning", "--base-id", "198"])
try:
    parts = dump()
finally:
    process.terminate()
    process.wait()
for part in parts:
    kind = part["@type"].rsplit(".", 1)[1]
    if kind not in PARTS:
        continue
    entries, field, message = PARTS[kind]
    for entry in part.get(entries, []):
        resource = {key: value for key, value in entry[field].items() if key != "@type"}
        name = resource["name"]
        file = f"bad-envoy-{name.removeprefix('bad-')}" if name.startswith("bad-") else f"envoy-{name}"
        (OUT / f"{file}.bin").write_bytes(ParseDict(resource, message()).SerializeToString(deterministic=True))
