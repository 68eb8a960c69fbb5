"""Asks gRPC's C-core what it makes of the resources in mesh-xds/src/resource/tests/recorded, for that directory's
verdicts.rs: its own client status (CSDS, gRFC A40), as it serves it.

    python recorded_verdicts.py MESH_XDS FILE

Of MESH_XDS, the directory of the crate, the tables in src/resource/tests are read for the type of each file. Each
resource is served under the name of its file, which is appended to its bytes (the last name of a message counts), to a
client that is led to it by a listener, routes and a cluster of that name. See ../README.md.
"""

import json
import os
import pathlib
import re
import sys
import tempfile
import time

import grpc
from grpc_csds import ClientStatusDiscoveryServiceServicer

from envoy.admin.v3 import config_dump_shared_pb2
from envoy.service.status.v3 import csds_pb2
from recording import URLS, Recorder, cluster, listener, resources, routes

CRATE, OUT = map(pathlib.Path, sys.argv[1:])
TESTS = CRATE / "src/resource/tests"
# Without a name a resource is no resource of anybody; these are about that.
NAMELESS = "bad-truncated bad-name-not-utf8 bad-wire-type bad-group bad-length bad-no-name".split()
PROVIDERS = "default client-side-certificate-provider-instance server-side-certificate-provider-instance".split()
PATIENCE = 60
# Resources that are asked for at once.
AT_ONCE = 12


def cases():
    """Type by name of file."""
    text = (TESTS / "recorded.rs").read_text() + (TESTS / "envoy.rs").read_text()
    found = re.findall(r'\("([\w-]+)", ([CELR]DS)\b', text)
    return {name: kind for name, kind in found if name not in NAMELESS}


def served(name, kind):
    """The resource of that file, and what leads to it."""
    field = name.encode()
    body = (TESTS / f"recorded/{name}.bin").read_bytes() + b"\x0a" + bytes([len(field)]) + field
    order = ["LDS", "RDS", "CDS", "EDS"]
    to_it = [listener(name, name), routes(name, name), cluster(name, name)][: order.index(kind)]
    return resources(*to_it) | {(kind, name): body}


def main():
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as scratch:
        files = ("certificate_file", "private_key_file", "ca_certificate_file")
        files = {file: f"{scratch}/{file}" for file in files}
        provider = {"plugin_name": "file_watcher", "config": files}
        server = {"server_uri": f"127.0.0.1:{recorder.port}", "channel_creds": [{"type": "insecure"}]}
        bootstrap = {
            "xds_servers": [server],
            "node": {"id": "recorded"},
            "certificate_providers": {name: provider for name in PROVIDERS},
        }
        os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"] = json.dumps(bootstrap)
        wanted, answer = cases(), csds_pb2.ClientStatusResponse(config=[csds_pb2.ClientConfig()])
        names = sorted(wanted)
        for start in range(0, len(names), AT_ONCE):
            some = {name: wanted[name] for name in names[start : start + AT_ONCE]}
            answer.config[0].generic_xds_configs.extend(verdicts(recorder, some))
        OUT.write_bytes(answer.SerializeToString(deterministic=True))
    os._exit(0)  # Channels to nowhere are nothing to wait for.


def verdicts(recorder, wanted):
    """What C-core says of these."""
    recorder.serve({key: body for name, kind in wanted.items() for key, body in served(name, kind).items()})
    channels = [grpc.insecure_channel(f"xds:///{name}") for name in wanted]
    for channel in channels:
        channel.subscribe(lambda _: None, try_to_connect=True)
    until = time.monotonic() + PATIENCE
    while left := undecided(found := status(wanted), wanted):
        if time.monotonic() > until:
            raise SystemExit(f"C-core has not decided on {left}")
        time.sleep(0.2)
    for channel in channels:
        channel.close()
    return found


def status(wanted):
    """What C-core answers of the files themselves."""
    answer = ClientStatusDiscoveryServiceServicer.FetchClientStatus(csds_pb2.ClientStatusRequest(), None)
    every = [one for config in answer.config for one in config.generic_xds_configs]
    return sorted((one for one in every if one.type_url == URLS.get(wanted.get(one.name))), key=lambda one: one.name)


def undecided(found, wanted):
    decided = (config_dump_shared_pb2.ACKED, config_dump_shared_pb2.NACKED)
    return wanted.keys() - {one.name for one in found if one.client_status in decided}


main()
